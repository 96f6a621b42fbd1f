"""Activations of a layer and labels as arrays of numpy, from whatever library they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isthmus.core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    Activations = Tensor | ArrayLike
else:
    Activations = Any


def matrix(activations: Activations) -> NDArray[np.float32] | NDArray[np.float64]:
    """Examples × units: whatever follows the first dimension is flattened, so that every map of a convolution counts.

    Numbers in float32 and float64 stay as they are and are not copied, narrower ones become float32, integers float64.

    Args:
        activations: of n examples, n × anything: a tensor on any device, with or without gradients, or an array.

    Raises:
        DataError: no examples, no units, something else than real numbers, or numbers that are not finite.
    """
    values = _array(activations)
    if values.dtype.kind not in "fiub":
        raise DataError(f"Activations are real numbers, one row for each example; got {values.dtype}.")
    if values.ndim == 0 or not values.size:
        raise DataError(f"Activations are examples × units, and some of either; got shape {values.shape}.")
    wide = np.float64 if values.dtype.kind in "iub" else np.float32 if values.dtype.itemsize < 4 else values.dtype
    rows: NDArray[Any] = values.astype(wide, copy=False).reshape(len(values), -1)
    if not np.isfinite(rows).all():
        raise DataError("Activations must be finite; some are NaN or infinite. Has the model diverged?")
    return rows


def classes(labels: Activations, n: int) -> NDArray[np.intp]:
    """Labels of n examples as numbers 0, 1, …, in the order of those that occur.

    Raises:
        DataError: labels that are no integers, or not one for each example.
    """
    values = _array(labels)
    if values.shape != (n,) or values.dtype.kind not in "iub":
        raise DataError(
            f"Labels are integers, one for each of {n} examples; got {values.dtype} of shape {values.shape}."
        )
    numbers: NDArray[np.intp] = np.unique(values, return_inverse=True)[1]
    return numbers


def _array(values: Activations) -> NDArray[Any]:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        # numpy has no bfloat16
        values = values.float() if values.is_floating_point() and values.dtype.itemsize < 4 else values
    return np.asarray(values)
