"""Accuracy and loss on training and new images, and the ROC curve of the membership attack."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isthmus import metrics
from isthmus.core.display import Figure, Section, Table
from isthmus.core.format import interval, listed, number, points
from isthmus.core.types import CheckResult, Metric
from isthmus.report.sections import common
from isthmus.report.sections.common import MEAN, Results

_BINS = 20
_SMALLEST = -8.0  # log₁₀ of the smallest loss that is drawn, in nats; that of a certain prediction rounds to 0
_COLUMNS = {
    "training_accuracy": "accuracy, training images",
    "accuracy": "accuracy, new images",
    "generalisation_gap": "train-test gap",
    "loss_gap": "loss gap",
    "membership_auroc": "AUROC of membership",
}


def section(results: Results) -> Section:
    """The ROC curve of the attack by loss and the losses in mean mode, a common.table, and two columns."""
    shown = common.with_metrics(results)
    compared = ("generalisation_gap", "membership_auroc") if shown else ()
    columns = {_COLUMNS[name]: common.column(shown, name, mode=MEAN) for name in compared}
    return Section(
        "Memorisation",
        "Does it memorise training images?",
        (_gaps(shown), _curves(shown), _spreads(shown)) if shown else (),
        columns,
        common.headlines(shown, "generalisation_gap", "generalisation gap"),
    )


def _gaps(shown: Results) -> Table:
    gap = common.superlative(common.column(shown, "generalisation_gap", mode=MEAN), "train-test gap", "widest", _signed)
    reading = (
        f"{gap}. It is the accuracy on training images less that on new ones; the loss gap is "
        "the loss on new images less that on training images. The AUROC is that of separating the two by their loss; "
        "50% is chance."
    )
    cells = {title: common.measured(name) for name, title in _COLUMNS.items()}
    return common.table("Training images and new images", reading, shown, cells)


def _signed(gap: Metric) -> str:
    value = gap.value or 0.0
    return f"{'−' if value < 0 else ''}{points(value)}{interval(gap)}"


def _losses(result: CheckResult) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Losses of training and of new images, without NaN."""
    return common.known(result.arrays["training_nll"]), common.known(result.arrays["nll"])


def _curves(shown: Results) -> Figure:
    areas = {name: metrics.auroc(*_losses(result)) for name, result in shown.items()}
    return Figure(
        "Membership attack by loss",
        f"Area under the curve: {common.ranking(areas)}. On the diagonal, the loss contains no information about "
        "membership.",
        "new images with at most this loss",
        "training images",
        tuple(common.roc(name, *_losses(result), group=name) for name, result in shown.items()),
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
    )


def _spreads(shown: Results) -> Figure:
    """Histograms of the loss: bars for training images, a line for new ones."""
    series, medians = [], []
    logs = {name: tuple(_log(values) for values in _losses(result)) for name, result in shown.items()}
    everything = np.concatenate([values for pair in logs.values() for values in pair])
    low, high = float(everything.min()), float(everything.max())
    edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    for name, (training, new) in logs.items():
        series += common.histograms(name, {"training": training, "new": new}, edges, low == _SMALLEST)
        of_training, of_new = (number(10 ** float(np.median(values))) for values in (training, new))
        medians.append(f"{of_training} and {of_new} for {name}")
    reading = f"Median loss on training and on new images: {listed(medians)}. Bars: training images; lines: new ones."
    if low == _SMALLEST:
        reading += " The first bin holds all losses down to 0."
    x_label = "log₁₀ of the loss in nats"
    return Figure("Losses of training and new images", reading, x_label, "fraction of images", tuple(series))


def _log(loss: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log10(np.maximum(loss, 10.0**_SMALLEST)), dtype=np.float64)
