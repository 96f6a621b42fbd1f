"""Stand-in checks: sections that use every kind of block, from the results of :mod:`report_standins`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from isthmus.core.display import (
    Figure,
    Gallery,
    Mark,
    Picture,
    Section,
    Series,
    Table,
)
from isthmus.core.types import CheckResult, Metric
from isthmus.report import sections
from tests.report.report_standins import EPSILONS, fraction

Found = Mapping[str, CheckResult]


def column(found: Found, key: str, **coords: str) -> dict[str, Metric]:
    metrics = {name: result.metrics.get(key, **coords) for name, result in found.items()}
    return {name: metric for name, metric in metrics.items() if metric}


def accuracy(found: Found) -> Section:
    columns = {"clean accuracy": column(found, "accuracy")}
    return Section("Accuracy", "How many clean images does it get right?", (), columns)


def robust(result: CheckResult, mode: str) -> Metric | None:
    return result.metrics.get("robust_accuracy", mode=mode)


def robustness(found: Found) -> Section:
    table = Table(
        "By mode",
        "Sampling makes little difference.",
        ("classifier", "mean", "stochastic", "seconds"),
        tuple((n, robust(r, "mean"), robust(r, "stochastic"), 1.25) for n, r in found.items()),
    )
    rows = tuple((name, pictures(result.arrays["adversarial"])) for name, result in found.items())
    gallery = Gallery("Images that fool them, at ε = 0.1", "The digits stay readable to us.", rows)
    columns = {
        "robust accuracy, mean mode": column(found, "robust_accuracy", mode="mean"),
        "stochastic mode": column(found, "robust_accuracy", mode="stochastic"),
    }
    question = "How many images does an attacker within ε leave right?"
    return Section("Robustness", question, (curves(found), table, gallery), columns)


def curves(found: Found) -> Figure:
    series = []
    for name, result in found.items():
        modes = result.details["curves"]
        for mode, curve in modes.items():
            intervals = [fraction(value).interval for value in curve]
            series.append(
                Series(
                    f"{name} ({mode})" if len(modes) > 1 else name,
                    EPSILONS,
                    tuple(curve),
                    tuple(interval.low for interval in intervals if interval),
                    tuple(interval.high for interval in intervals if interval),
                    "line" if mode == "mean" else "dashed",
                    name,
                )
            )
    return Figure(
        title="Robust accuracy against ε",
        reading="At ε = 0.1 the bottleneck models keep 40 to 60% of their images, the other a third "
        "(PGD-40, n = 360, 95% intervals).",
        x_label="ε (L∞, images in [0, 1])",
        y_label="accuracy under attack",
        series=tuple(series),
        marks=(Mark("audited ε", x=0.1), Mark("chance", y=0.1)),
        x_range=(0, 0.3),
        y_range=(0, 1),
    )


def pictures(images: np.ndarray) -> tuple[Picture, ...]:
    return tuple(Picture(image[:, :, None], f"read as {3 * i % 10}, was {i}") for i, image in enumerate(images))


def calibration(found: Found) -> Section:
    def line(name: str) -> Series:
        x, y = zip(*found[name].details["bins"], strict=True)
        low, high = (tuple(min(1.0, max(0.0, value + d)) for value in y) for d in (-0.06, 0.06))
        return Series(name, x, y, low, high, "line", name)

    lines = tuple(line(name) for name in found)
    reading = "Points above the diagonal are more often right than they say (n = 360, 90% intervals)."
    labels = ("confidence", "accuracy")
    diagram = Figure("Reliability", reading, *labels, lines, (), (0, 1), (0, 1), identity=True)
    bars = [Series(s.name, s.x, tuple(40 * v**4 for v in s.x), style="bars", group=s.name) for s in lines]
    reading = "Most predictions are nearly certain (n = 360)."
    counts = Figure("How sure they are", reading, "confidence", "images", tuple(bars))
    question = "Is its confidence calibrated?"
    return Section("Calibration", question, (diagram, counts), {"ECE": column(found, "ece")})


def information(found: Found) -> Section:
    def point(name: str, rate: Metric, relevance: Metric) -> Series:
        assert rate.value is not None
        assert relevance.value is not None
        assert relevance.interval is not None
        low, high = (relevance.interval.low,), (relevance.interval.high,)
        return Series(name, (rate.value,), (relevance.value,), low, high, "points", name)

    entropy = math.log(10)
    plane = Figure(
        title="Information plane",
        reading="ceb-rho0 lies nearest to the MNI point, others keep more than needed (n = 360, one seed).",
        x_label="rate R ≥ I(X;Z), nats",
        y_label="I(Y;Z) lower bound, nats",
        series=tuple(point(n, r.metrics.one("rate"), r.metrics.one("relevance")) for n, r in found.items()),
        marks=(Mark("MNI: I(X;Z) = I(Y;Z) = H(Y)", entropy, entropy), Mark("H(Y)", y=entropy)),
    )
    columns = {"rate R": column(found, "rate"), "residual ReX": column(found, "residual")}
    question = "How much does its representation keep, and how much of that is needed?"
    return Section("Information", question, (plane,), columns)


SECTIONS = {
    "accuracy": accuracy,
    "robustness": robustness,
    "calibration": calibration,
    "information": information,
}
_find = sections.find


def find(check: str) -> Callable[[Found], Section]:
    """In place of ``sections.find``: the stand-in sections, and the real ones of other checks."""
    return SECTIONS.get(check) or _find(check)
