"""Activations of a layer and labels, from any library, as numpy arrays."""

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
    """Activations as examples × units: all dimensions after the first are flattened.

    float32 and float64 are kept and not copied; narrower floats become float32, and integers float64.

    Args:
        activations: n × anything, of n examples: a tensor on any device, with or without gradients, or an array.

    Raises:
        DataError: no examples, no units, or numbers that are not real and finite.
    """
    values = _array(activations)
    if values.dtype.kind not in "fiub":
        raise DataError(f"Activations must be real numbers, one row for each example; got {values.dtype}.")
    if values.ndim == 0 or not values.size:
        raise DataError(f"Activations must be examples × units, at least one of each; got shape {values.shape}.")
    wide = np.float64 if values.dtype.kind in "iub" else np.float32 if values.dtype.itemsize < 4 else values.dtype
    rows: NDArray[Any] = values.astype(wide, copy=False).reshape(len(values), -1)
    if not np.isfinite(rows).all():
        raise DataError("Activations must be finite; some are NaN or infinite. Has the model diverged?")
    return rows


def classes(labels: Activations, n: int) -> NDArray[np.intp]:
    """Labels of n examples as numbers 0, 1, …, in the order of the labels that occur.

    Raises:
        DataError: labels that are not integers, or not one for each example.
    """
    values = _array(labels)
    if values.shape != (n,) or values.dtype.kind not in "iub":
        raise DataError(
            f"Labels must be integers, one for each of {n} examples; got {values.dtype} of shape {values.shape}."
        )
    numbers: NDArray[np.intp] = np.unique(values, return_inverse=True)[1]
    return numbers


def _array(values: Activations) -> NDArray[Any]:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        # numpy has no bfloat16
        values = values.float() if values.is_floating_point() and values.dtype.itemsize < 4 else values
    return np.asarray(values)
