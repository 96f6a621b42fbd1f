"""How the tables' cells are read: accuracies and gaps, means over seeds with standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

from isthmus.studies.evidence import Estimate, average
from isthmus.studies.rate_distortion.printed import MODELS, Mean, Model
from isthmus.studies.study import StudyRecord

Quantity = Callable[[Mapping[str, Any]], float]


def trained(record: StudyRecord, model: Model, batch: int) -> list[Mapping[str, Any]]:
    """Cells of a model at a batch size, seed by seed."""
    return sorted(record.each(model=model, batch_size=batch), key=lambda cell: int(cell["seed"]))


def models(record: StudyRecord) -> list[Model]:
    """Those that were trained, in the paper's order."""
    return [model for model in MODELS if any(record.each(model=model))]


def batches(record: StudyRecord) -> list[int]:
    """Batch sizes, the largest first."""
    return sorted({cell["batch_size"] for cell in record.cells.values()}, reverse=True)


def accuracy(cell: Mapping[str, Any], split: str) -> float:
    """On "train" or "test", in [0, 1]."""
    right, of = cell[split]
    return float(right) / float(of)


def gap(cell: Mapping[str, Any]) -> float:
    """Training less test accuracy."""
    return accuracy(cell, "train") - accuracy(cell, "test")


def mean(values: Sequence[float]) -> Mean | None:
    """With the standard error of the mean, as the paper gives it; NaN for a single seed, None for none."""
    if not values:
        return None
    return Mean(fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan)


def lead(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], of: Quantity, level: float = 0.95
) -> Estimate | None:
    """A quantity of ``first`` less that of ``second``, mean over their equal seeds; None without any."""
    others = {cell["seed"]: cell for cell in second}
    steps = [of(cell) - of(others[cell["seed"]]) for cell in first if cell["seed"] in others]
    return replace(average(steps, level, "points"), n=first[0]["test"][1]) if steps else None
