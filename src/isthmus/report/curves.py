"""Training curves: the metrics of each run over its epochs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from isthmus.core.display import Figure, Series
from isthmus.core.format import quantity
from isthmus.report.loading import AuditedModel

MOST_POINTS = 60

_CURVES = {
    "ce": ("Classification cross-entropy", "E[−log c(y|z)], nats"),
    "rate": ("Rate", "R ≥ I(X;Z), nats"),
    "residual": ("Residual information", "ReX ≥ I(X;Z|Y), nats"),
    "rate_lower": ("Lower bound on I(X;Z)", "InfoNCE ≤ I(X;Z), nats"),
    "accuracy": ("Accuracy on training batches", "fraction right"),
    "test_accuracy": ("Accuracy on test images", "fraction right"),
}

Curve = list[tuple[float, float]]


def figures(models: Sequence[AuditedModel]) -> list[Figure]:
    """Training curves of the models that have them."""
    return [figure for key in _CURVES if (figure := _figure(key, models))]


def _figure(key: str, models: Sequence[AuditedModel]) -> Figure | None:
    curves = {model.name: _curve(key, model.training) for model in models}
    series = tuple(
        Series(name, tuple(x for x, _ in curve), tuple(y for _, y in curve), group=name)
        for name, curve in curves.items()
        if len(curve) > 1
    )
    if not series:
        return None
    title, label = _CURVES[key]
    whole = (0.0, 1.0) if "accuracy" in key else None
    return Figure(title, _reading(key, series), "epoch", label, series, y_range=whole)


def _reading(key: str, series: Sequence[Series]) -> str:
    unit = "fraction" if "accuracy" in key else "nats"
    ends = [one.y[-1] for one in series]
    least, most = quantity(min(ends), unit), quantity(max(ends), unit)
    if least == most:
        text = f"It ends at {least}{' for each of them' if len(ends) > 1 else ''}"
    else:
        text = f"It ends between {least} and {most}"
    how = "" if key == "test_accuracy" else "means over an epoch's batches, "
    return f"{text} ({how}one run each, so no interval)."


def _curve(key: str, lines: Sequence[Mapping[str, Any]]) -> Curve:
    """One point per epoch, or per bin of epochs if there are many."""
    whole_epochs = _measured(f"epoch_{key}", lines)
    measured = whole_epochs if len(whole_epochs) > 1 else _measured(key, lines)
    width = max(1.0, max((epoch for epoch, _ in measured), default=0.0) / MOST_POINTS)
    bins: dict[int, Curve] = defaultdict(list)
    for epoch, value in measured:
        bins[math.floor(epoch / width)].append((epoch, value))
    return [(fmean(e for e, _ in points), fmean(v for _, v in points)) for _, points in sorted(bins.items())]


def _measured(key: str, lines: Sequence[Mapping[str, Any]]) -> Curve:
    """Epochs (counted from 1) and values of the lines that have both."""
    return [
        (float(line["epoch"]) + 1.0, float(line[key]))
        for line in lines
        if _finite(line.get("epoch")) and _finite(line.get(key))
    ]


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
