"""The information plane of a deterministic layer: information of its binned activations on input and label, in nats.

Activations become words of bin numbers, one word for each example. A word follows from the input, so that
I(X;T) = H(T), and I(T;Y) = H(T) − H(T|Y). Both are plug-in estimates over the n examples
(:mod:`isthmus.information.discrete`), at most ln n, which a wide layer soon reaches. Binning is a function of T: by the
data processing inequality the information of words is at most that of activations ("A Rate-Distortion Theory of
Adversarial Examples", §4.2; Shwartz-Ziv & Tishby 2017).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isthmus.core.errors import ConfigError, unknown
from isthmus.information import discrete
from isthmus.information.activations import Activations, classes, matrix
from isthmus.information.order_statistics import order_statistics

Scheme = Literal["equal_mass", "equal_width"]
PASSES = 64
"""Up to this many edges, comparing all values with each edge is faster than a binary search."""
PART = 2**18
"""Activations that are compared at a time, so that they stay in the processor's cache."""


@dataclass(frozen=True)
class Binning:
    """How activations are binned; every unit of a layer by the same edges.

    Attributes:
        bins: maximum number of bins.
        scheme: "equal_mass": edges are quantiles of all activations of the layer together, which are new at every look,
            so that bins are equally full and a strictly increasing map of the layer changes nothing (the
            maximum-entropy adaptive binning of §4.2, 30 bins). Edges that coincide are one: the zeros of a ReLU have a
            bin of their own, and the others are as full as they were. "equal_width": between two limits.
        limits: of equal_width, (−1, 1) for a tanh, say; what lies beyond them is in the outermost bins. The layer's
            least and largest activation where None.

    Raises:
        ConfigError: fewer than one bin or more than 65,536, an unknown scheme, limits that are not increasing and
            finite, or limits of equal_mass.
    """

    bins: int = 30
    scheme: Scheme = "equal_mass"
    limits: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.bins <= 2**16:
            raise ConfigError(f"There are 1 to 65536 bins; got {self.bins}.")
        if self.scheme not in get_args(Scheme):
            raise ConfigError(unknown("binning scheme", self.scheme, get_args(Scheme)))
        if self.limits is None:
            return
        if self.scheme != "equal_width":
            raise ConfigError(f"Only bins of equal width have limits; got {self.limits} with {self.scheme}.")
        if not -math.inf < self.limits[0] < self.limits[1] < math.inf:
            raise ConfigError(f"The limits of bins are two finite numbers in increasing order; got {self.limits}.")

    def edges(self, activations: Activations) -> NDArray[Any]:
        """The inner edges, increasing, at most bins − 1: a number is in bin k if k of them lie below it.

        So each edge belongs to the bin on its left.

        Raises:
            DataError: activations that are missing or not finite.
        """
        return self._edges(matrix(activations))

    def _edges(self, rows: NDArray[Any]) -> NDArray[Any]:
        inner = np.arange(1, self.bins)
        if self.scheme == "equal_mass":
            # quantiles that are activations themselves, without interpolation: that is what makes maps harmless
            found: NDArray[Any] = np.unique(order_statistics(rows, -(-inner * rows.size // self.bins) - 1))
            return found
        low, high = self.limits or (float(rows.min()), float(rows.max()))
        # each limit by its own share, since their difference may overflow
        return np.unique((low * (1.0 - inner / self.bins) + high * (inner / self.bins)).astype(rows.dtype))


def bin_numbers(activations: Activations, binning: Binning = Binning()) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The bin of every activation, examples × units, from 0 on.

    Raises:
        DataError: activations that are missing or not finite.
    """
    rows = matrix(activations)
    return _bin_numbers(rows, binning._edges(rows))


def words(numbers: NDArray[Any]) -> NDArray[np.intp]:
    """One number for each row, equal where rows are equal, from 0 on: rows are compared whole, so nothing collides.

    Args:
        numbers: integers, examples × units.
    """
    whole = np.ascontiguousarray(numbers)
    row = np.dtype((np.void, whole.shape[1] * whole.dtype.itemsize))
    found: NDArray[np.intp] = np.unique(whole.view(row).ravel(), return_inverse=True)[1]
    return found


@dataclass(frozen=True)
class LayerInformation:
    """A layer's place in the information plane, in nats.

    Attributes:
        i_xt: Î(X;T) = Ĥ(T), at most ln n.
        i_ty: Î(T;Y), at most Ĥ(Y).
        label_entropy: Ĥ(Y) of these examples.
        words: different ones, at most n; with n of them ``i_xt`` is at its ceiling, whatever the layer keeps.
        n: examples.
    """

    i_xt: float
    i_ty: float
    label_entropy: float
    words: int
    n: int

    @property
    def memorisation(self) -> float:
        """Î(X;T) − Î(T;Y) = Ĥ(T|Y), the distance from the optimal value of the information bottleneck, in nats.

        Where labels follow from images, the least I(X;T) of any code that says I(T;Y) of the label is just that. The
        paper calls the distance the degree of memorisation ("A Rate-Distortion Theory of Adversarial Examples", §4.2).
        It is at most H(X) − I(T;Y), with :func:`isthmus.information.discrete.independent_entropy` for a bound on H(X);
        this estimate, like ``i_xt``, at most ln n − Î(T;Y).
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
    """Î(X;T) and Î(T;Y) of a deterministic layer, binned.

    Args:
        activations: of n examples, n × anything, flattened.
        labels: their classes, integers.
        binning: how.

    Raises:
        DataError: activations that are missing or not finite, or labels that do not belong to them.
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
    """:func:`layer_information` of each layer, by name; the bins are each layer's own.

    Raises:
        DataError: as there.
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
