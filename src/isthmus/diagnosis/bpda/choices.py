"""Indices chosen by comparing values: ``argmax``, ``argsort``, ``topk``, ``median`` and similar.

An index keeps the values among which it was chosen. If index i was chosen, with value v, each alternative j has the
weight softmax_j(−|z_j − v|/τ): SoftSort (Prillo & Eisenschlos 2020, arXiv:2006.16038), which is the ordinary softmax if
v is the largest. The temperature τ is half the mean of |z_j − v|, so that weights do not depend on the unit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from isthmus.diagnosis.bpda.relaxed import Call, as_float, fast_sigmoid, is_floating

MAX_WEIGHTS = 2**24
"""Maximum number of weights; beyond it there is no gradient."""


@dataclass(frozen=True)
class Choice:
    """The values that indices were chosen among.

    Attributes:
        source: rows R×K of values that were compared.
        index: R×M, the chosen indices.
        positions: for each entry of the index tensor, its position in ``index``.
        shape, dim: shape of the input, and the dimension along which values were compared.
        sign: 1 for the largest, −1 for the smallest, 0 for others.
        order: 1 if the indices are all of a row in ascending order of its values, −1 in descending, 0 otherwise.
        source_is_weights: whether the values are the weights, of a random draw.
    """

    source: Tensor
    index: Tensor
    positions: Tensor
    shape: torch.Size
    dim: int
    sign: int = 0
    order: int = 0
    source_is_weights: bool = False

    @classmethod
    def drawn(cls, weights: Tensor, index: Tensor) -> Choice:
        """A choice drawn with probabilities proportional to N×K (or K) weights."""
        rows = weights.reshape(-1, weights.shape[-1])
        positions = torch.arange(index.numel(), device=index.device).view(index.shape)
        return cls(
            rows, index.reshape(len(rows), -1), positions, weights.shape, weights.dim() - 1, source_is_weights=True
        )

    def weights(self) -> Tensor | None:
        """Weight of each alternative for each entry, ``positions``.shape + (K,); None if there are too many."""
        count = self.source.shape[1]
        if self.positions.numel() * count > MAX_WEIGHTS:
            return None
        rows = self.source[self.positions // self.index.shape[1]]
        if self.source_is_weights:
            return rows / rows.sum(-1, keepdim=True)
        values = self.source.gather(1, self.index).flatten()[self.positions]
        return soft_choice(rows, values.unsqueeze(-1), -1)

    def expected(self) -> Tensor | None:
        """The expected indices under the weights."""
        weights = self.weights()
        if weights is None:
            return None
        return weights @ torch.arange(weights.shape[-1], dtype=weights.dtype, device=weights.device)

    def transformed(self, call: Call) -> Choice:
        """The choice behind the result of a function that only moves, repeats or drops indices."""
        if call.name in ("to", "long", "int", "short", "byte", "cpu", "cuda"):
            return self
        positions = call.function(self.positions, *call.args[1:], **call.options)
        whole = positions.shape == self.positions.shape and torch.equal(positions, self.positions)
        return replace(self, positions=positions, order=self.order if whole else 0)

    def in_input_shape(self, rows: Tensor) -> Tensor:
        """Rows R×K in the shape of the input."""
        shape = [size for at, size in enumerate(self.shape) if at != self.dim] + [rows.shape[1]]
        return rows.view(shape).movedim(-1, self.dim)


def soft_choice(values: Tensor, found: Tensor, dim: int) -> Tensor:
    """Weights of all values if the value ``found`` was chosen."""
    distances = (values - found).abs()
    temperature = distances.detach().mean(dim, keepdim=True) / 2
    return (-distances / temperature.clamp(min=1e-12)).softmax(dim)


def choice_of(x: Any) -> Choice | None:
    """The choice behind a tensor of indices; None if there is none."""
    found: Choice | None = getattr(x, "choice", None)
    return found


def remember_choice(index: Any, source: Any, dim: int, sign: int, order: int = 0) -> None:
    """Attach to indices the values among which they were chosen along a dimension."""
    if not (isinstance(index, Tensor) and is_floating(source) and source.requires_grad and source.dim()):
        return
    dim %= source.dim()
    count = source.shape[dim]
    last = index.movedim(dim, -1) if index.dim() == source.dim() else index.unsqueeze(-1)
    rows = source.movedim(dim, -1).reshape(-1, count)
    positions = torch.arange(last.numel(), device=index.device).view(last.shape)
    positions = positions.movedim(-1, dim) if index.dim() == source.dim() else positions.squeeze(-1)
    index.choice = Choice(rows, last.reshape(len(rows), -1), positions, source.shape, dim, sign, order)  # type: ignore[attr-defined]


def soft_rank(rows: Tensor, order: int) -> Tensor:
    """For each value, the number of values in its row that it exceeds (``order`` 1) or is below (−1), R×K."""
    if rows.numel() * rows.shape[1] > MAX_WEIGHTS:
        return order * rows
    return fast_sigmoid(order * (rows.unsqueeze(-1) - rows.unsqueeze(-2))).sum(-1)


def argmax(call: Call) -> Any:
    """``argmax``, ``argmin``."""
    real, dim = call.real(), call.argument(1, "dim")
    sign = -1 if call.name == "argmin" else 1
    x = as_float(call.args[0])
    remember_choice(real, x.flatten() if dim is None else x, 0 if dim is None else dim, sign)
    return real


def argsort(call: Call) -> Any:
    """``argsort``; the ``argsort`` of an ``argsort`` is a rank."""
    real, dim = call.real(), call.options.get("dim", -1)
    descending = call.options.get("descending", False)
    for extra in call.args[1:]:
        dim, descending = (dim, extra) if isinstance(extra, bool) else (extra, descending)
    known = choice_of(call.args[0])
    if known is not None and known.order and not descending:
        source = known.source
        ranked = known.order * source if call.soft_values else soft_rank(source, known.order)
        return call.attach(real, ranked.movedim(-1, dim))
    remember_choice(real, as_float(call.args[0]), dim, 0, -1 if descending else 1)
    return real


def values_and_indices(call: Call) -> Any:
    """``sort``, ``topk``, ``kthvalue``, ``median``, ``mode``, ``max`` …: torch differentiates the values only."""
    real = call.real()
    if not (isinstance(real, tuple) and len(real) == 2):
        return real
    values, indices = real
    if not isinstance(indices, Tensor) or indices.is_floating_point():
        return real
    dim = call.argument(2 if call.name in ("topk", "kthvalue") else 1, "dim")
    dim = (0 if call.name in ("max", "min") else -1) if dim is None or isinstance(dim, bool) else dim
    x = as_float(call.args[0])
    sign = {"max": 1, "cummax": 1, "min": -1, "cummin": -1}.get(call.name, 0)
    if call.name == "topk":
        sign = 1 if call.options.get("largest", True) else -1
    descending = call.options.get("descending", len(call.args) > 2 and call.args[2] is True)
    remember_choice(indices, x, dim, sign, (-1 if descending else 1) if call.name == "sort" else 0)
    if sign and values.shape[dim if values.dim() == x.dim() else 0 :][:1] == (1,):
        values.extreme_of = (x, dim, sign)
    return real


def extreme(call: Call) -> Any:
    """``amax``, ``amin``: torch differentiates them; a comparison with them is a hard label."""
    real, dim = call.real(), call.argument(1, "dim")
    if isinstance(dim, int) and real.dim() == call.args[0].dim():
        real.extreme_of = (as_float(call.args[0]), dim, 1 if call.name == "amax" else -1)
    return real
