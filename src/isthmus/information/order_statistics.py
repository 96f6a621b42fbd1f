"""Order statistics of many numbers without sorting them all, for quantiles of a whole layer at every epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALL = 2**17
"""Up to this many numbers, sorting is faster."""
PART = 2**18
"""Numbers per block, so that a block stays in the cache."""


def order_statistics(values: NDArray[Any], ranks: NDArray[np.intp]) -> NDArray[Any]:
    """The numbers at these ranks (from 0) of the sorted values, exactly.

    Of float32, numbers are counted by the upper half of their bits, and only those are sorted that share it with a
    number that is asked for. Other numbers are all sorted.

    Args:
        values: float32 or float64, without NaN; −0 comes before 0.
        ranks: each from 0 to the number of values − 1.
    """
    flat = values.ravel()
    if flat.dtype != np.float32 or len(flat) <= SMALL:
        found: NDArray[Any] = np.sort(flat)[ranks]
        return found
    counts = np.zeros(2**16, np.intp)
    for bits in _bits(flat):
        counts += np.bincount(bits >> 16, minlength=2**16)
    buckets = np.searchsorted(np.cumsum(counts), ranks, side="right")
    wanted = np.zeros(2**16, np.bool_)
    wanted[buckets] = True
    some = np.sort(np.concatenate([np.compress(wanted.take(bits >> 16), bits) for bits in _bits(flat)]))
    left_out = np.cumsum(np.where(wanted, 0, counts))
    return _numbers(some[ranks - left_out[buckets]])


def _bits(flat: NDArray[np.float32]) -> Iterator[NDArray[np.uint32]]:
    """The bits as unsigned integers in the order of the numbers: all flipped where negative, else the sign alone."""
    for start in range(0, len(flat), PART):
        signed = flat[start : start + PART].view(np.int32)
        yield signed.view(np.uint32) ^ ((signed >> 31).view(np.uint32) | np.uint32(2**31))


def _numbers(bits: NDArray[np.uint32]) -> NDArray[np.float32]:
    return (bits ^ np.where(bits >> 31, np.uint32(2**31), np.uint32(2**32 - 1))).view(np.float32)
