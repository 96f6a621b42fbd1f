"""The page of figure 7: how margins are spread, the accuracy over them, and a table."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from isthmus.checks.views import bin_series, share_series
from isthmus.core.types import Figure, Mark, Section, Table
from isthmus.metrics import Bin
from isthmus.studies import catalogue
from isthmus.studies.old.drawing import Row
from isthmus.studies.old.evidence import percent
from isthmus.studies.old.study import StudyRecord, data_name
from isthmus.studies.rate_distortion.noise_page import NAMES
from isthmus.studies.rate_distortion.transfer_claims import ONE_SHOT, ZERO_SHOT, measured, there, trained

SHOTS = {"zero_shot": "zero-shot", "one_shot": "one-shot"}
NUMBERS = {
    "zero_shot_accuracy": "zero-shot accuracy",
    "zero_shot_margin": "mean margin",
    "zero_shot_margin_error": "error of the margin",
    "one_shot_accuracy": "one-shot accuracy",
    "one_shot_margin": "mean margin",
    "one_shot_margin_error": "error of the margin",
}


def section(record: StudyRecord) -> Section:
    """Margins of each model, accuracy over them for all models, zero- and one-shot; the table."""
    blocks: list[Figure | Table] = []
    if record.cells:
        first = {model: trained(record, model)[0] for model in there(record)}
        for shot in SHOTS:
            having = {model: cell for model, cell in first.items() if shot in cell["bins"]}
            blocks += [_margins(shot, model, cell) for model, cell in having.items()]
            blocks += [_accuracies(shot, having)] if having else []
        blocks.append(_table(record))
    return Section("Figure 7: transfer", catalogue.question(record.study), tuple(blocks))


def _bins(cell: Mapping[str, Any], shot: str) -> list[Bin]:
    return [Bin.model_validate(stored) for stored in cell["bins"][shot]]


def _margins(shot: str, model: str, cell: Mapping[str, Any]) -> Figure:
    found = cell["metrics"]
    values = {"accuracy": found[f"{shot}_accuracy"], "mean margin": found[f"{shot}_margin"]}
    return Figure(
        title=f"Margins, {SHOTS[shot]}: {NAMES[model]}",
        reading=f"Seed {cell['seed']}, {cell['n']:,} test images of {cell['target']}.",
        x_label="margin: the largest probability less the second",
        y_label="share of the images",
        series=(share_series(NAMES[model], _bins(cell, shot)),),
        marks=tuple(Mark(said, x=value[0]) for said, value in values.items() if value),
        x_range=(0.0, 1.0),
    )


def _accuracies(shot: str, cells: Mapping[str, Mapping[str, Any]]) -> Figure:
    seed = next(iter(cells.values()))["seed"]
    return Figure(
        title=f"Accuracy over the margin, {SHOTS[shot]}",
        reading=f"Seed {seed}. Above the diagonal margins are too small, below it too large.",
        x_label="mean margin of the bin",
        y_label="accuracy in the bin",
        series=tuple(bin_series(NAMES[model], _bins(cell, shot)) for model, cell in cells.items()),
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        identity=True,
    )


def _table(record: StudyRecord) -> Table:
    lines: list[Row] = [("printed, B+ from SVHN to MNIST", 1, None, ZERO_SHOT, None, None, ONE_SHOT, None, None)]
    for model in there(record):
        cells = trained(record, model)
        numbers = [found.metric if (found := measured(record, model, name)) else None for name in NUMBERS]
        lines.append((NAMES[model], len(cells), percent(fmean(cell["test_accuracy"] for cell in cells)), *numbers))
    cell = next(iter(record.cells.values()))
    how = "through the model's whitening" if record.config["whitened"] else "grey and in [0, 1], without the whitening"
    return Table(
        title=f"From {data_name(record.config['data'])} to {cell['target']}",
        reading=f"Means over seeds. {cell['target']} is seen {how}. One-shot: means over {record.config['draws']} "
        f"copies of the model, each after {record.config['steps']} steps on one other example of each class.",
        columns=("model", "seeds", "right on its own test images", *NUMBERS.values()),
        rows=tuple(lines),
    )
