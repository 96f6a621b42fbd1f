"""How the tables' cells are read: accuracies and gaps, means over seeds with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from isthmus.studies.old.evidence import Estimate, share, signed_sum
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.rate_distortion.printed import MODELS, Model

Signs = Mapping[str, Literal[1, -1]]
GAP: Signs = {"train": 1, "test": -1}
"""Training less test accuracy."""
TEST: Signs = {"test": 1}


def trained(record: StudyRecord, model: Model, batch: int) -> list[Mapping[str, Any]]:
    """Cells of a model at a batch size, seed by seed."""
    return sorted(record.each(model=model, batch_size=batch), key=lambda cell: int(cell["seed"]))


def models(record: StudyRecord) -> list[Model]:
    """Those that were trained, in the paper's order."""
    return [model for model in MODELS if any(record.each(model=model))]


def batches(record: StudyRecord) -> list[int]:
    """Batch sizes, the largest first."""
    return sorted({cell["batch_size"] for cell in record.cells.values()}, reverse=True)


def accuracy(cells: Sequence[Mapping[str, Any]], split: str, level: float = 0.95) -> Estimate:
    """Mean over seeds of the accuracy on "train" or "test"."""
    return share([cell[split][0] for cell in cells], cells[0][split][1], level)


def gap(cells: Sequence[Mapping[str, Any]]) -> Estimate:
    """Mean over seeds of training less test accuracy."""
    return signed_sum([(sign, *_counts(cells, split)) for split, sign in GAP.items()])


def lead(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], of: Signs, level: float = 0.95
) -> Estimate | None:
    """A sum of accuracies of ``first`` less that of ``second``, mean over their equal seeds; None without any."""
    shared = {cell["seed"] for cell in first} & {cell["seed"] for cell in second}
    one, other = ([cell for cell in cells if cell["seed"] in shared] for cells in (first, second))
    if not shared:
        return None
    plus = [(sign, *_counts(one, split)) for split, sign in of.items()]
    minus = [(_OTHER[sign], *_counts(other, split)) for split, sign in of.items()]
    return signed_sum([*plus, *minus], level)


_OTHER: dict[Literal[1, -1], Literal[1, -1]] = {1: -1, -1: 1}


def _counts(cells: Sequence[Mapping[str, Any]], split: str) -> tuple[list[int], int]:
    return [cell[split][0] for cell in cells], cells[0][split][1]
