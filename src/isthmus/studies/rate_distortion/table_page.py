"""The page of a table: accuracy and gap of each model at each batch size, ours beside the printed."""

from __future__ import annotations

from isthmus.core.types import Section, Table
from isthmus.studies import catalogue
from isthmus.studies.old.drawing import Row
from isthmus.studies.old.evidence import percent
from isthmus.studies.old.study import StudyRecord, data_name
from isthmus.studies.rate_distortion.printed import TABLES, Labels, Mean
from isthmus.studies.rate_distortion.readings import accuracy, batches, gap, models, trained

_READINGS = {
    "original": "Gap: training less test accuracy.",
    "random": "Gap: accuracy on training images and their random labels less that on test images and their own. Test "
    "images need not be balanced: who always gives the most frequent class is right on that many of them, and "
    "transmits nothing.",
}


def section(record: StudyRecord, title: str, labels: Labels) -> Section:
    """One table."""
    blocks = (_table(record, labels),) if record.cells else ()
    return Section(title, catalogue.question(record.study), blocks)


def _table(record: StudyRecord, labels: Labels) -> Table:
    lines: list[Row] = []
    printed = TABLES[labels] if data_name(record.config["data"]) == "svhn" else {}
    for batch in batches(record):
        for model in models(record):
            cells = trained(record, model, batch)
            if cells:
                shown = [each.metric for each in (accuracy(cells, "train"), accuracy(cells, "test"), gap(cells))]
                lines.append((f"{batch}", model, "ours", len(cells), *shown))
            entry = printed.get((model, batch))
            if entry is not None:
                place = {"original": ("", _said(entry.accuracy)), "random": (_said(entry.accuracy), "")}[labels]
                lines.append((f"{batch}", model, "printed", 5, *place, _said(entry.gap)))
    chance = {cell["chance"] for cell in record.cells.values()}
    decays = sorted({cell["weight_decay"] for cell in record.cells.values() if cell["weight_decay"]})
    decay = f" (λ = {', '.join(f'{each:g}' for each in decays)})" if decays else ""
    return Table(
        title=f"Accuracy and generalisation gap, {labels} labels",
        reading=f"A: the network alone; B: with weight decay{decay}; C: with batch normalisation besides; B+: B with "
        "more images to train on. Ours: means over seeds with 95% intervals over images and, from three seeds on, over "
        f"seeds. Printed: means ± standard errors. {_READINGS[labels]} The best constant answer is right on "
        f"{percent(max(chance))} of test images.",
        columns=("batch size", "model", "numbers", "seeds", "train", "test", "gap"),
        rows=tuple(lines),
    )


def _said(each: Mean | None) -> str:
    if each is None:
        return ""
    return f"{percent(each.value, unit=False)} ± {percent(each.error, unit=False)}%"
