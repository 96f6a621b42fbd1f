"""The information plane of a deterministic layer: information of its binned activations about input and label, in nats.

The bin numbers of an example form a word. The word is a function of the input, so I(X;T) = H(T), and
I(T;Y) = H(T) − H(T|Y). Both are plug-in estimates over the n examples (:mod:`isthmus.information.discrete`), at most
ln n, which a wide layer soon reaches. Binning is a function of T, so by the data processing inequality words have at
most the information of activations ("A Rate-Distortion Theory of Adversarial Examples", §4.2; Shwartz-Ziv & Tishby
2017).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isthmus.core.errors import ConfigError, unknown
from isthmus.information import discrete
from isthmus.information.activations import Activations, classes, matrix

Scheme = Literal["equal_mass", "equal_width"]
PASSES = 64
"""Up to this many edges, comparing all values with each edge is faster than a binary search."""
PART = 2**18
"""Number of activations per block, so that a block fits into the processor's cache."""
SORTED = 2**17
"""Up to this many numbers, sorting all of them finds order statistics faster."""


@dataclass(frozen=True)
class Binning:
    """How activations are binned. All units of a layer have the same edges.

    Attributes:
        bins: maximum number of bins.
        scheme: "equal_mass": edges are quantiles of all activations of the layer, computed anew for each measurement,
            so bins are equally full, and strictly increasing maps of the layer change nothing (the maximum-entropy
            adaptive binning of §4.2, with 30 bins). Equal edges are merged: the zeros of a ReLU share one bin, and the
            other bins do not change. "equal_width": between two limits.
        limits: for equal_width, such as (−1, 1) for a tanh; values beyond them are in the outermost bins. None means
            the smallest and the largest activation of the layer.

    Raises:
        ConfigError: fewer than one bin or more than 65,536, an unknown scheme, limits that are not increasing and
            finite, or limits for equal_mass.
    """

    bins: int = 30
    scheme: Scheme = "equal_mass"
    limits: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.bins <= 2**16:
            raise ConfigError(f"bins must be 1 to 65536; got {self.bins}.")
        if self.scheme not in get_args(Scheme):
            raise ConfigError(unknown("binning scheme", self.scheme, get_args(Scheme)))
        if self.limits is None:
            return
        if self.scheme != "equal_width":
            raise ConfigError(f"Only bins of equal width have limits; got {self.limits} with {self.scheme}.")
        if not -math.inf < self.limits[0] < self.limits[1] < math.inf:
            raise ConfigError(f"The limits of bins must be two finite numbers in increasing order; got {self.limits}.")

    def edges(self, activations: Activations) -> NDArray[Any]:
        """The inner edges in increasing order, at most bins − 1. A number is in bin k if it exceeds k of them.

        Raises:
            DataError: there are no activations, or they are not finite.
        """
        return self._edges(matrix(activations))

    def _edges(self, rows: NDArray[Any]) -> NDArray[Any]:
        inner = np.arange(1, self.bins)
        if self.scheme == "equal_mass":
            # quantiles without interpolation are activations themselves, so that increasing maps change nothing
            found: NDArray[Any] = np.unique(order_statistics(rows, -(-inner * rows.size // self.bins) - 1))
            return found
        low, high = self.limits or (float(rows.min()), float(rows.max()))
        # a weighted sum of the limits, since their difference may overflow
        return np.unique((low * (1.0 - inner / self.bins) + high * (inner / self.bins)).astype(rows.dtype))


def bin_numbers(activations: Activations, binning: Binning = Binning()) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The bin of every activation, examples × units, counted from 0.

    Raises:
        DataError: there are no activations, or they are not finite.
    """
    rows = matrix(activations)
    return _bin_numbers(rows, binning._edges(rows))


def words(numbers: NDArray[Any]) -> NDArray[np.intp]:
    """A number for each row, counted from 0; two rows have the same number only if they are equal.

    Args:
        numbers: integers, examples × units.
    """
    whole = np.ascontiguousarray(numbers)
    row = np.dtype((np.void, whole.shape[1] * whole.dtype.itemsize))
    found: NDArray[np.intp] = np.unique(whole.view(row).ravel(), return_inverse=True)[1]
    return found


@dataclass(frozen=True)
class LayerInformation:
    """The position of a layer in the information plane, in nats.

    Attributes:
        i_xt: Î(X;T) = Ĥ(T), at most ln n.
        i_ty: Î(T;Y), at most Ĥ(Y).
        label_entropy: Ĥ(Y) of these examples.
        words: number of different words, at most n; at n, ``i_xt`` is at its maximum, whatever the layer keeps.
        n: number of examples.
    """

    i_xt: float
    i_ty: float
    label_entropy: float
    words: int
    n: int

    @property
    def memorisation(self) -> float:
        """Î(X;T) − Î(T;Y) = Ĥ(T|Y), the distance from the optimum of the information bottleneck, in nats.

        If images determine labels, the smallest I(X;T) of a code with a given I(T;Y) is equal to it. The paper calls
        the distance the degree of memorisation ("A Rate-Distortion Theory of Adversarial Examples", §4.2). It is at
        most H(X) − I(T;Y), where :func:`isthmus.information.discrete.independent_entropy` bounds H(X); this estimate is
        at most ln n − Î(T;Y).
        """
        return max(self.i_xt - self.i_ty, 0.0)

    @property
    def i_xt_bits(self) -> float:
        """``i_xt`` in bits."""
        return self.i_xt / math.log(2.0)

    @property
    def i_ty_bits(self) -> float:
        """``i_ty`` in bits."""
        return self.i_ty / math.log(2.0)


def layer_information(activations: Activations, labels: Activations, binning: Binning = Binning()) -> LayerInformation:
    """Î(X;T) and Î(T;Y) of the binned activations of a deterministic layer.

    Args:
        activations: n × anything, of n examples; flattened.
        labels: integer classes of the examples.
        binning: how activations are binned.

    Raises:
        DataError: there are no activations, they are not finite, or labels are not one integer for each example.
    """
    rows = matrix(activations)
    own = classes(labels, len(rows))
    word = words(_bin_numbers(rows, binning._edges(rows)))
    return LayerInformation(
        i_xt=discrete.entropy(word),
        i_ty=discrete.information(word, own),
        label_entropy=discrete.entropy(own),
        words=int(word.max()) + 1,
        n=len(rows),
    )


def information_plane(
    layers: Mapping[str, Activations], labels: Activations, binning: Binning = Binning()
) -> dict[str, LayerInformation]:
    """:func:`layer_information` of each layer by name. Each layer has its own bins.

    Raises:
        DataError: as for :func:`layer_information`.
    """
    return {name: layer_information(activations, labels, binning) for name, activations in layers.items()}


def _bin_numbers(rows: NDArray[Any], edges: NDArray[Any]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    flat = rows.ravel()
    numbers = np.zeros(flat.shape, np.uint8 if len(edges) < 2**8 else np.uint16)
    for start in range(0, len(flat), PART):
        part, out = flat[start : start + PART], numbers[start : start + PART]
        if len(edges) <= PASSES:
            for edge in edges:
                out += part > edge
        else:
            out[:] = np.searchsorted(edges, part)
    return numbers.reshape(rows.shape)


def order_statistics(values: NDArray[Any], ranks: NDArray[np.intp]) -> NDArray[Any]:
    """The numbers at these ranks (from 0) of the sorted values, exactly.

    float32 numbers are counted by the upper half of their bits, and only numbers that share it with a requested one are
    sorted. Numbers of other types are all sorted.

    Args:
        values: float32 or float64, without NaN; −0 comes before 0.
        ranks: each from 0 to the number of values − 1.
    """
    flat = values.ravel()
    if flat.dtype != np.float32 or len(flat) <= SORTED:
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
    """Bits as unsigned integers that sort like the numbers: all flipped for negative ones, the sign bit for others."""
    for start in range(0, len(flat), PART):
        signed = flat[start : start + PART].view(np.int32)
        yield signed.view(np.uint32) ^ ((signed >> 31).view(np.uint32) | np.uint32(2**31))


def _numbers(bits: NDArray[np.uint32]) -> NDArray[np.float32]:
    return (bits ^ np.where(bits >> 31, np.uint32(2**31), np.uint32(2**32 - 1))).view(np.float32)
