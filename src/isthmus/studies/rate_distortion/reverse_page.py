"""The page of figure 4: images and prototypes of each model, and a table of how alike they are."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from isthmus.core.types import Gallery, Picture, Section, Table
from isthmus.studies import catalogue
from isthmus.studies.old.drawing import Row, unpacked
from isthmus.studies.old.evidence import percent
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.rate_distortion.noise_page import NAMES
from isthmus.studies.rate_distortion.reverse_claims import cosines, grown, own_class, reached, said, there

ROWS = {"images": "images", "prototypes": "prototypes", "means": "means"}
SPACES = {"whitened": "whitened images", "pixels": "pixels"}


def section(record: StudyRecord) -> Section:
    """A gallery a model, of its first seed; the table."""
    blocks: tuple[Gallery | Table, ...] = ()
    if record.cells:
        blocks = (*(_gallery(record, cell) for cell in _shown(record)), _table(record))
    return Section("Figure 4: from label to image", catalogue.question(record.study), blocks)


def _shown(record: StudyRecord) -> list[Mapping[str, Any]]:
    return [cell for model in there(record) for cell in record.each(model=model) if cell["pictures"]]


def _gallery(record: StudyRecord, cell: Mapping[str, Any]) -> Gallery:
    rows = [
        (label, tuple(Picture(unpacked(image), caption) for image, caption in cell["pictures"][name]))
        for name, label in ROWS.items()
    ]
    return Gallery(
        title=f"{NAMES[cell['model']]}, seed {cell['seed']}",
        reading=f"One image of each class, with the model's answer and its confidence; what grew out of noise for the "
        f"class, in {SPACES[record.config['space']]}; the mean of the class's images. Grey is the mean of all, and "
        "every picture has the contrast that it takes to fill it.",
        rows=tuple(rows),
    )


def _table(record: StudyRecord) -> Table:
    lines: list[Row] = []
    for model in there(record):
        cells = grown(record, model)
        all_cells = list(record.each(model=model))
        measured: tuple[str, ...] = ("",) * 4
        if cells:
            measured = (
                f"{fmean(cell['steps'][0] for cell in cells):.0f}",
                percent(fmean(cell["relative_distance"][0] for cell in cells)),
                said(cosines(record, model)),
                said(cosines(record, model, "image_similarity")),
            )
        accuracy = percent(fmean(cell["test_accuracy"] for cell in all_cells))
        counts = (reached(record, model).metric, own_class(record, model).metric)
        lines.append((NAMES[model], len(all_cells), accuracy, *counts, *measured))
    return Table(
        title="From label to image",
        reading="Means over prototypes at full confidence and seeds. Likeness is a cosine with the mean of the class, "
        "both less the mean of all images; an image's is with the mean of the others. Printed: about 100 steps for B, "
        "and pictures.",
        columns=(
            "model",
            "seeds",
            "right on test images",
            "at full confidence",
            "nearest to their class's mean",
            "steps",
            "distance from the mean, of an image's",
            "likeness",
            "likeness of images",
        ),
        rows=tuple(lines),
    )
