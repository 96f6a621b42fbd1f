"""Why a classifier is no better than a constant answer: permuted labels, another range of pixels, or its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.metrics import wilson

if TYPE_CHECKING:
    from torch import Tensor

    from isthmus.checks.context import Context

FEWEST = 20
"""Images from which a classifier at chance is recognised; of fewer the interval's lower end says nothing."""

_CLASSES_SHOWN = 5
_IMAGES = 5  # of each class, on average
_ONE_CLASS = 0.99  # of the answers


def likely_cause(context: Context, truth: NDArray[Any], confusion: NDArray[np.int64], chance: float) -> str:
    """What probably went wrong, and what to do, in a sentence; empty where there are too few images to say."""
    if len(truth) < FEWEST:
        return ""
    return _other_order(confusion, chance) or _other_range(context, truth, chance) or _weights(confusion)


def _other_order(confusion: NDArray[np.int64], chance: float) -> str:
    """Whether the confusion matrix is nearly a permutation: then another order of the labels is right."""
    from scipy.optimize import linear_sum_assignment

    true, predicted = linear_sum_assignment(confusion, maximize=True)
    right, n = int(confusion[true, predicted].sum()), int(confusion.sum())
    # of few images the best of all orders is above chance by selection alone
    if n < _IMAGES * len(confusion) or right / n < (1 + chance) / 2:
        return ""
    moved = [f"{a}→{b}" for a, b in zip(true.tolist(), predicted.tolist(), strict=True) if a != b]
    shown = ", ".join(moved[:_CLASSES_SHOWN]) + (", ..." if len(moved) > _CLASSES_SHOWN else "")
    return (
        f"With the classes in another order ({shown}) {100 * right / n:.1f}% would be right: the labels are likely "
        "permuted; give them in the order of the model's logits."
    )


def _other_range(context: Context, truth: NDArray[Any], chance: float) -> str:
    """Whether images on another scale are classified better: the model then expects that scale."""
    mean = context.images.mean((0, 2, 3), keepdim=True)
    std = context.images.std((0, 2, 3), keepdim=True).clamp(min=1e-6)
    scales: dict[str, Callable[[Tensor], Tensor]] = {
        "[0, 255]": lambda images: images * 255,
        "[-1, 1]": lambda images: 2 * images - 1,
        "standardised form (mean 0, standard deviation 1)": lambda images: (images - mean) / std,
    }
    for scale, change in scales.items():
        right = int((_predicted(context, change) == truth).sum())
        if wilson(right, len(truth)).low > chance:
            return (
                f"With pixels in {scale} {100 * right / len(truth):.1f}% would be right: the model likely expects them "
                "so; convert images from [0, 1] inside the model."
            )
    return ""


def _predicted(context: Context, change: Callable[[Tensor], Tensor]) -> NDArray[Any]:
    import torch

    from isthmus.checks.context import answer

    parts = zip(*(torch.split(values, context.batch_size) for values in (context.images, context.keys)), strict=True)
    return torch.cat([answer(context.model, change(images), keys).argmax(1) for images, keys in parts]).numpy()


def _weights(confusion: NDArray[np.int64]) -> str:
    answers = confusion.sum(0)
    largest = int(answers.argmax())
    same = f"Nearly all answers are class {largest}. " if answers[largest] > _ONE_CLASS * max(answers.sum(), 1) else ""
    return (
        f"{same}Neither another order of the classes nor another range of pixels helps: the weights are likely "
        "untrained, not loaded, or of another model."
    )
