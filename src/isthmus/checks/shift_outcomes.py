"""Which images of a test set under shift a classifier gets right: one pass over each, paired over corruptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.checks.context import answer
from isthmus.core.errors import DataError
from isthmus.metrics import CORRUPTIONS, SEVERITIES

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor, nn

    from isthmus.data.shift.shifted import Shifted


def right(
    model: nn.Module, shifted: Shifted, batch_size: int = 256, restricted: bool = True, seed: int = 0
) -> Bool[Tensor, " n"]:
    """Whether each image is classified correctly, on the CPU, in the order of the set.

    The model is put in eval mode for the time and left as it was. Where a logit is NaN or the greatest infinite, the
    answer counts as wrong. A stochastic mode draws an image's noise from its place in the published set and ``seed``.

    Args:
        model: from float images in [0, 1], N×C×H×W, to logits, one for each of ``shifted.classes``.
        batch_size: changes what it takes, not the result beyond rounding.
        restricted: choose among the classes that the set's authors let a classifier choose from, which is how numbers
            on ImageNet-A are published; otherwise among all. Other sets have no such choice.

    Raises:
        ModelError: the model has another number of classes.
        DataError: a file cannot be read.
    """
    import torch

    from isthmus.core import randomness
    from isthmus.core.preserve_state import device_of, preserve_state

    device = device_of(model, shifted.positions)
    found = []
    with preserve_state(model, device, seed), torch.no_grad():
        for images, labels, positions in shifted.batches(batch_size, device):
            logits = answer(model, images, randomness.example_keys(seed, positions))
            found.append(shifted.predictions(logits, restricted) == labels.cpu())
    return torch.cat(found)


def right_under_corruptions(
    model: nn.Module,
    given: str | Mapping[str, Any],
    classes: Sequence[str] | None = None,
    corruptions: Sequence[str] = CORRUPTIONS,
    batch_size: int = 256,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, NDArray[np.bool_]]:
    """Outcomes of each corruption at all severities, 5×n, as :func:`isthmus.metrics.measured_mce` takes them.

    Args:
        given: the benchmark, "cifar10_c" or "imagenet_c", or its options without corruption and severity.
        classes: see :func:`isthmus.data.shift.shifted.load`.
        progress: called with (done, total) after each of the 5·len(corruptions) passes.

    Raises:
        ModelError, DataError: as :func:`right`, or the corruptions are not all of the same images.
    """
    from isthmus.data.shift.shifted import load

    options = {"name": given} if isinstance(given, str) else dict(given)
    outcomes = {}
    examples: str | None = None
    for number, corruption in enumerate(corruptions):
        rows = []
        for severity in SEVERITIES:
            shifted = load({**options, "corruption": corruption, "severity": severity}, classes)
            if examples not in (None, shifted.examples):
                raise DataError(f"{shifted.name} is not of the same images as those before it; complete the copy.")
            examples = shifted.examples
            rows.append(right(model, shifted, batch_size, seed=seed).numpy())
            progress(number * len(SEVERITIES) + severity, len(corruptions) * len(SEVERITIES))
        outcomes[corruption] = np.stack(rows)
    return outcomes
