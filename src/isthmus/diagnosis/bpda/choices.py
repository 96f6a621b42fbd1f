"""Indices that were chosen by comparing values: ``argmax``, ``argsort``, ``topk``, ``median`` and their like.

An index remembers the values that it was chosen among. Where index i was chosen, with value v, every alternative j has
the weight softmax_j(−|z_j − v|/τ): SoftSort (Prillo & Eisenschlos 2020, arXiv:2006.16038), and the ordinary softmax
where v is the largest. The temperature τ is half the mean of |z_j − v|, so that weights do not depend on the unit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from isthmus.diagnosis.bpda.relaxed import Call, is_real, step

MOST = 2**24
"""Weights that are computed at most; where there would be more, there is no gradient."""


@dataclass(frozen=True)
class Choice:
    """Where indices come from.

    Attributes:
        source: rows R×K of values that were compared.
        index: R×M, what was chosen.
        places: of the shape of the tensor that remembers this: position in ``index`` of each of its entries.
        shape, dim: of the values as they were given, and along which of their dimensions they were compared.
        sign: 1 for the largest, −1 for the smallest, 0 for others.
        order: 1 where the indices are all of a row, in ascending order of its values, −1 in descending, 0 otherwise.
        weights_given: the values are themselves weights to draw by.
    """

    source: Tensor
    index: Tensor
    places: Tensor
    shape: torch.Size
    dim: int
    sign: int = 0
    order: int = 0
    weights_given: bool = False

    @classmethod
    def drawn(cls, weights: Tensor, index: Tensor) -> Choice:
        """Of indices that were drawn with probabilities proportional to N×K (or K) weights."""
        rows = weights.reshape(-1, weights.shape[-1])
        places = torch.arange(index.numel(), device=index.device).view(index.shape)
        return cls(rows, index.reshape(len(rows), -1), places, weights.shape, weights.dim() - 1, weights_given=True)

    def weights(self) -> Tensor | None:
        """Of each alternative for each entry, ``places``.shape + (K,); None where there are too many."""
        count = self.source.shape[1]
        if self.places.numel() * count > MOST:
            return None
        rows = self.source[self.places // self.index.shape[1]]
        if self.weights_given:
            return rows / rows.sum(-1, keepdim=True)
        values = self.source.gather(1, self.index).flatten()[self.places]
        return soft_choice(rows, values.unsqueeze(-1), -1)

    def expected(self) -> Tensor | None:
        """The indices' expectation under the weights."""
        weights = self.weights()
        if weights is None:
            return None
        return weights @ torch.arange(weights.shape[-1], dtype=weights.dtype, device=weights.device)

    def moved(self, call: Call) -> Choice:
        """The choice of what a function makes of the indices, which only moves, repeats or leaves out some."""
        if call.name in ("to", "long", "int", "short", "byte", "cpu", "cuda"):
            return self
        places = call.function(self.places, *call.args[1:], **call.options)
        whole = places.shape == self.places.shape and torch.equal(places, self.places)
        return replace(self, places=places, order=self.order if whole else 0)

    def as_given(self, rows: Tensor) -> Tensor:
        """Rows R×K in the shape of the values that were compared."""
        shape = [size for at, size in enumerate(self.shape) if at != self.dim] + [rows.shape[1]]
        return rows.view(shape).movedim(-1, self.dim)


def soft_choice(values: Tensor, found: Tensor, dim: int) -> Tensor:
    """The weight of every value where this one was found."""
    distances = (values - found).abs()
    temperature = distances.detach().mean(dim, keepdim=True) / 2
    return (-distances / temperature.clamp(min=1e-12)).softmax(dim)


def choice_of(x: Any) -> Choice | None:
    """What a tensor of indices was chosen among."""
    found: Choice | None = getattr(x, "choice", None)
    return found


def chosen(index: Any, source: Any, dim: int, sign: int, order: int = 0) -> None:
    """Let indices remember the values that they were chosen among along a dimension."""
    if not (isinstance(index, Tensor) and is_real(source) and source.requires_grad and source.dim()):
        return
    dim %= source.dim()
    count = source.shape[dim]
    last = index.movedim(dim, -1) if index.dim() == source.dim() else index.unsqueeze(-1)
    rows = source.movedim(dim, -1).reshape(-1, count)
    places = torch.arange(last.numel(), device=index.device).view(last.shape)
    places = places.movedim(-1, dim) if index.dim() == source.dim() else places.squeeze(-1)
    index.choice = Choice(rows, last.reshape(len(rows), -1), places, source.shape, dim, sign, order)  # type: ignore[attr-defined]


def soft_rank(rows: Tensor, order: int) -> Tensor:
    """How many of a row's values each one exceeds (``order`` 1) or falls short of (−1), R×K."""
    if rows.numel() * rows.shape[1] > MOST:
        return order * rows
    return step(order * (rows.unsqueeze(-1) - rows.unsqueeze(-2))).sum(-1)
