"""Look at a classifier on clean images before any attack: is it above chance, and what may be wrong with the set-up?

Robust accuracy says nothing if the clean accuracy is at chance, and the usual causes lie outside the model: labels in
another order than the logits, normalisation that is missing or applied twice, or images in another layout. Each is
tried, and the one with which far more images would be classified correctly is named, with its remedy.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from isthmus import metrics
from isthmus.audits.image_changes import Pixels, changes
from isthmus.checks.check import chance
from isthmus.checks.context import MEAN, Context, correct, finite, predict
from isthmus.core.format import interval, percent
from isthmus.core.preserve_state import preserve_state
from isthmus.core.types import Caution
from isthmus.models import batch_statistics

MIN_IMAGES = 20
"""With fewer images, the lower end of the interval does not show whether a classifier is at chance."""

GAIN = 0.1
"""A change is a likely remedy if it raises the accuracy by this much, and significantly, on the same images."""

LEVEL = 0.999
"""Of the interval of that difference: about a dozen changes are tried."""

GOOD = 1 - GAIN
"""From this accuracy on, no change can raise it by :data:`GAIN`, and none is tried."""

SAMPLE = 200
"""Images on which a change is tried, evenly spread."""

_ORDERS, _P = 999, 0.01  # of the permutation test
_ONE_CLASS = 0.99  # of the predictions
_OTHERS = 0.01  # of the predictions may be of classes without a label
_PER_CLASS = 20  # images, on average, from which on a class without a label counts as absent from the data
_NAMED = 5  # classes in a sentence
_LISTED = 20  # classes in a line of code


def cautions(context: Context, probe: bool = True) -> tuple[Caution, ...]:
    """What a look at the clean predictions gives; an error comes first, and means that attacks are pointless.

    Args:
        probe: whether changed images may be shown to a model that is above chance but not good: at most a dozen times
            :data:`SAMPLE`.
    """
    truth, n = context.truth, len(context.labels)
    right, constant = correct(context.logits.numpy(), truth), chance(truth, context.num_classes)
    accuracy = metrics.accuracy(right)
    assert accuracy.interval is not None
    at_chance = n >= MIN_IMAGES and accuracy.interval.low <= constant
    if at_chance and right.mean() > constant:  # few images, or labels of mostly one class
        at_chance = not _related(truth, context.logits.numpy(), context.seed)
    doubtful = n >= MIN_IMAGES and right.mean() < GOOD
    labels, best_order = _other_order(context, right, constant) if doubtful else (None, 0.0)
    inputs = _other_images(context, right) if doubtful and (probe or at_chance) else None
    statistics = _batch_statistics(context) if inputs is None else None
    if not at_chance:
        found = (labels, inputs, statistics, _other_classes(context, labels), _sigmoid(context))
        return tuple(caution for caution in found if caution is not None)
    causes = [caution.text for caution in (labels, inputs, statistics, _sigmoid(context)) if caution is not None]
    text = (
        f"{percent(accuracy.value)} of {n} clean images are classified correctly{interval(accuracy)}, not above the "
        f"{percent(constant)} of a constant prediction. {' '.join(causes) or _weights(context, best_order)}"
    )
    return (Caution(about="chance", level="error", text=text),)


def _spread(context: Context) -> Tensor:
    """Positions of a sample of the images, evenly spread."""
    n = len(context.labels)
    return torch.linspace(0, n - 1, min(n, SAMPLE)).long()


def _gains(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> bool:
    """Whether far more of the same images are right."""
    gain = metrics.paired_difference(before, after, LEVEL)
    return gain.value is not None and gain.interval is not None and gain.value >= GAIN and gain.interval.low > 0


def _related(truth: NDArray[np.int64], logits: NDArray[np.float32], seed: int) -> bool:
    """Whether more predictions are right than a random order of the labels explains (permutation test, P ≤ 0.01)."""
    predicted = np.where(finite(logits), logits.argmax(axis=1), -1)
    right, labels, generator = int((truth == predicted).sum()), truth.copy(), np.random.default_rng(seed)
    as_many = 0
    for _ in range(_ORDERS):
        generator.shuffle(labels)
        as_many += int((labels == predicted).sum()) >= right
    return (1 + as_many) / (1 + _ORDERS) <= _P


# --- labels ---


def _other_order(context: Context, right: NDArray[np.bool_], constant: float) -> tuple[Caution | None, float]:
    """Whether labels are in another order than the logits; and the accuracy with the best order.

    The best one-to-one assignment of labels to logits, found on every second image of each class, must at least halve
    the errors on the others, and the other way round: on the images that it is found on, any classifier gains.
    """
    truth, logits = context.truth, context.logits.numpy()
    predicted = np.where(finite(logits), logits.argmax(axis=1), -1)
    halves = _halves(truth)
    after = np.zeros_like(right)
    for half in (0, 1):
        order = _best_order(truth[halves != half], predicted[halves != half], context.num_classes)
        after[halves == half] = (order[truth] == predicted)[halves == half]
    order = _best_order(truth, predicted, context.num_classes)[: truth.max() + 1]
    share = float((order[truth] == predicted).mean())
    if after.mean() < (1 + max(right.mean(), constant)) / 2 or not _gains(right, after):
        return None, share
    moved = [f"{label}→{logit}" for label, logit in enumerate(order.tolist()) if label != logit and label in truth]
    shown = ", ".join(moved[:_NAMED]) + (", …" if len(moved) > _NAMED else "")
    written = f"torch.tensor({order.tolist()})[labels]" if len(order) <= _LISTED else "the model's index of each class"
    return Caution(
        about="labels",
        level="warning",
        text=f"With the classes in another order ({shown}) {percent(share)} would be right: the labels are likely "
        f"permuted{_as_text(order)}. Give {written} as labels; for a folder, list the classes in the order of the "
        "model's logits (option classes, or --classes).",
    ), share


def _halves(truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 or 1 for each image, alternating within each class."""
    halves = np.empty_like(truth)
    for label in np.unique(truth):
        rows = np.flatnonzero(truth == label)
        halves[rows] = np.arange(len(rows)) % 2
    return halves


def _best_order(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """The logit of each label, one to one, with which most predictions are right; without images the label itself."""
    known = predicted >= 0
    labels, rows = np.unique(truth[known], return_inverse=True)
    counts = np.bincount(rows * classes + predicted[known], minlength=len(labels) * classes).astype(float)
    counts[np.arange(len(labels)) * classes + labels] += 0.5 / max(len(labels), 1)  # of equal choices, the label
    order = np.arange(classes)
    chosen, logits = linear_sum_assignment(counts.reshape(len(labels), classes), maximize=True)
    order[labels[chosen]] = logits
    return order


def _as_text(order: NDArray[np.int64]) -> str:
    """A remark if the classes are numbers that were sorted as text."""
    sorted_as_text = sorted(range(len(order)), key=str)
    return " (classes sorted as text, 10 before 2)" if len(order) > 10 and order.tolist() == sorted_as_text else ""


def _other_classes(context: Context, order: Caution | None) -> Caution | None:
    """Whether many predictions are of classes that no image has, if the model knows more classes than the labels."""
    truth, predicted = context.truth, context.logits.argmax(1).numpy()
    present = np.unique(truth)
    if len(truth) < _PER_CLASS * len(present):
        present = np.arange(truth.max() + 1)
    others = int((~np.isin(predicted, present)).sum())
    if len(present) == context.num_classes or metrics.wilson(others, len(truth)).low <= _OTHERS or order is not None:
        return None
    kept = present.tolist() if len(present) <= _LISTED else "classes"
    return Caution(
        about="classes",
        level="warning" if others > len(truth) / 2 else "note",
        text=f"The model gives {context.num_classes:,} logits for {len(present):,} classes of labels, and "
        f"{percent(others / len(truth))} of the predictions are other classes, which count as wrong. If label k is not "
        f"the model's class k, give its indices as labels; to choose among these classes alone, return "
        f"logits[:, {kept}].",
    )


# --- images ---


def _other_images(context: Context, right: NDArray[np.bool_]) -> Caution | None:
    """Whether the classifier is far more accurate on changed images, or with the statistics of the batch."""
    rows = _spread(context)
    before, best, found = right[rows.numpy()], -1, None
    tried: list[tuple[str, str, str, Callable[[], NDArray[np.bool_] | None]]] = [
        ("images", f"images {change.text}", change.remedy, partial(_right, context, rows, change.apply))
        for change in changes(context.images[rows.to(context.images.device)])
    ]
    tried.append(("batch_statistics", *_BATCH, partial(_by_batch, context, rows)))
    for about, what, remedy, measure in tried:
        after = None
        with suppress(Exception):  # the model may reject such images
            after = measure()
        if after is not None and _gains(before, after) and int(after.sum()) > best:
            text = (
                f"With {what}, {percent(after.mean())} of {len(rows)} would be right instead of "
                f"{percent(before.mean())}: {remedy}."
            )
            best, found = int(after.sum()), Caution(about=about, level="warning", text=text)
    return found


def _right(context: Context, rows: Tensor, change: Pixels = lambda images: images) -> NDArray[np.bool_]:
    """Whether these images, changed, are classified correctly."""

    def load(part: Tensor) -> tuple[Tensor, Tensor]:
        images, keys = context.rows(rows[part])
        return change(images), keys

    logits = context.predictions(load, len(rows), {MEAN: context.model})[MEAN]
    return correct(logits, context.truth[rows.numpy()])


_BATCH = (
    "the batch's own statistics in batch normalisation",
    "the running statistics were likely not loaded, or never updated; load running_mean and running_var with the "
    "weights, or pass training images through the model in training mode",
)


def _by_batch(context: Context, rows: Tensor) -> NDArray[np.bool_] | None:
    """Whether images are classified correctly with the batch's own statistics; None without running ones."""
    layers = [m for m in context.model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not layers:
        return None
    with preserve_state(context.model, context.images.device, context.seed):
        for layer in layers:
            layer.train()
        return _right(context, rows)


def _batch_statistics(context: Context) -> Caution | None:
    """Whether images differ from the running statistics of the first batch normalisation."""
    images, keys = context.images[: context.batch_size], context.keys
    warning = batch_statistics.warning(
        context.model, lambda shown: predict(context.model, shown, keys[: len(shown)]), images
    )
    return None if warning is None else Caution(about="batch_statistics", level="warning", text=warning)


# --- the model ---


def _sigmoid(context: Context) -> Caution | None:
    """Whether all outputs are in [0, 1], as those of a sigmoid for each class are."""
    logits = context.logits
    if len(logits) < MIN_IMAGES or not ((logits >= 0) & (logits <= 1)).all():
        return None
    return Caution(
        about="outputs",
        level="warning",
        text="All outputs are in [0, 1] and do not sum to 1, as those of a sigmoid for each class. They are taken as "
        "logits, whose softmax is nearly uniform: confidence, calibration and detection scores mean little. Return the "
        "numbers before the sigmoid.",
    )


def _weights(context: Context, best_order: float) -> str:
    """The remaining cause; "" if there are too few images to exclude the others."""
    logits = context.logits.numpy()
    predicted = np.bincount(logits[finite(logits)].argmax(axis=1), minlength=context.num_classes)
    largest = int(predicted.argmax())
    one_class = predicted[largest] > _ONE_CLASS * max(int(predicted.sum()), 1)
    same = f"Nearly all predictions are class {largest}. " if one_class else ""
    return (
        f"{same}Neither another order of the classes (at best {percent(best_order)}) nor another normalisation or "
        "layout of the images helps: the weights are likely untrained, not loaded, or of another model."
    )
