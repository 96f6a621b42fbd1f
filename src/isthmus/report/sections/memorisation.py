"""Accuracy and loss on training and new images, and the ROC curve of the membership attack."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isthmus import metrics
from isthmus.core.display import Figure, Section, Series, Table
from isthmus.core.format import interval, listed, percent, points
from isthmus.core.types import CheckResult
from isthmus.report.sections.common import MEAN, Results, Row, column, extreme, headlines, label, with_metrics

_CURVE = 40  # points of a drawn curve
_BINS = 20
_SMALLEST = -8.0  # log₁₀ of the smallest loss that is drawn, in nats; that of a certain prediction rounds to 0
_NAMED = 3  # classifiers in a caption
_COLUMNS = {
    "training_accuracy": "accuracy, training images",
    "accuracy": "accuracy, new images",
    "generalisation_gap": "train-test gap",
    "loss_gap": "loss gap",
    "membership_auroc": "AUROC of membership",
}


def section(results: Results) -> Section:
    """The ROC curve of the attack by loss and the losses in mean mode, a table, and two columns."""
    shown = with_metrics(results)
    blocks: tuple[Figure | Table, ...] = (_gaps(shown), _curves(shown), _spreads(shown)) if shown else ()
    compared = {"generalisation_gap": _COLUMNS["generalisation_gap"], "membership_auroc": _COLUMNS["membership_auroc"]}
    columns = {title: column(shown, name, mode=MEAN) for name, title in compared.items()}
    known = {title: found for title, found in columns.items() if found}
    question = "Does it memorise training images?"
    return Section(
        "Memorisation", question, blocks, known, headlines(shown, "generalisation_gap", "generalisation gap")
    )


def _gaps(shown: Results) -> Table:
    rows: list[Row] = [
        (label(classifier, mode), *(result.metrics.get(name, mode=mode) for name in _COLUMNS))
        for classifier, result in shown.items()
        for mode in result.details["modes"]
    ]
    gaps = column(shown, "generalisation_gap", mode=MEAN)
    widest = extreme(gaps)
    gap = gaps[widest.names[0]]
    size = f"{'−' if (gap.value or 0.0) < 0 else ''}{points(gap.value or 0.0)}{interval(gap)}"
    if widest.others:
        sentence = f"{listed(widest.names)} {'has' if len(widest.names) == 1 else 'have'} the widest gap: {size}"
    else:
        sentence = f"{f'All {len(gaps)} have the same' if len(gaps) > 1 else f'{widest.names[0]} has a'} gap: {size}"
    reading = (
        f"{sentence}{widest.caveat}. The gap is the accuracy on training images less that on new ones; the loss gap is "
        "the loss on new images less that on training images. The AUROC is that of separating the two by their loss; "
        "50% is chance."
    )
    columns = ("classifier", *_COLUMNS.values())
    return Table("Training images and new images", reading, columns, tuple(rows))


def _losses(result: CheckResult) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Losses of training and of new images, without NaN."""
    found = (result.arrays[name] for name in ("training_nll", "nll"))
    training, new = (values[~np.isnan(values)] for values in found)
    return training, new


def _curves(shown: Results) -> Figure:
    series = []
    for name, result in shown.items():
        training, new = _losses(result)
        x, y = (tuple(rates.tolist()) for rates in metrics.roc_curve(training, new, most=_CURVE))
        series.append(Series(name, x, y, group=name))
    areas = {name: metrics.auroc(*_losses(result)) for name, result in shown.items()}
    ranked = sorted(areas, key=lambda name: -areas[name])
    each = listed([f"{percent(areas[name])} for {name}" for name in ranked[:_NAMED]])
    return Figure(
        "Membership attack by loss",
        f"Area under the curve: {each}{', no more for the rest' if len(ranked) > _NAMED else ''}. On the diagonal, "
        "the loss contains no information about membership.",
        "new images with at most this loss",
        "training images",
        tuple(series),
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
    centres = tuple(((edges[1:] + edges[:-1]) / 2).tolist())
    for name, (training, new) in logs.items():
        shares = [tuple((np.histogram(values, edges)[0] / values.size).tolist()) for values in (training, new)]
        series.append(Series(f"{name} (training)", centres, shares[0], style="bars", group=name))
        series.append(Series(f"{name} (new)", centres, shares[1], style="dashed", group=name))
        of_training, of_new = (f"{10 ** float(np.median(values)):.2g}" for values in (training, new))
        medians.append(f"{name} has a median of {of_training} on training images and {of_new} on new ones")
    reading = f"{'; '.join(medians[:_NAMED])}. Bars: training images; lines: new ones."
    if low == _SMALLEST:
        reading += " The first bin holds all losses down to 0."
    x_label = "log₁₀ of the loss in nats"
    return Figure("Losses of training and new images", reading, x_label, "fraction of images", tuple(series))


def _log(loss: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log10(np.maximum(loss, 10.0**_SMALLEST)), dtype=np.float64)
