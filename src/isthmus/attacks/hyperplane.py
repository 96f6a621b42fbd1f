"""Least perturbations that bring an image onto a hyperplane without leaving the box [0, 1].

Find δ with w·δ = residual and 0 ≤ x + δ ≤ 1 of least norm (Croce & Hein 2020, arXiv:1907.02044, section 2.1). Every
pixel moves in the one direction that helps, at most to the wall of the box; the norms differ in how far each moves. If
the hyperplane is outside the box, the result is the corner closest to it.

Arguments are points: flattened images in [0, 1], several per hyperplane (FAB projects the iterate and the original on
the same one), so that work which depends on w alone is done once; normals w, one for each of the n columns of points;
and residuals: the wanted w·δ. A NaN anywhere in a row makes its whole result NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Projection = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From points (m×n×d), normals (n×d) and residuals (m×n) to perturbations (m×n×d)."""

_FEW = 8  # in l1 an eighth of the pixels mostly suffices


def onto_linf(
    points: Float[Tensor, "m n d"], normals: Float[Tensor, "n d"], residuals: Float[Tensor, "m n"]
) -> Float[Tensor, "m n d"]:
    """Least ‖δ‖_∞: all pixels with w ≠ 0 move by one amount λ, or as far as the box allows."""
    return _at_speeds(points, normals, residuals, None)


def onto_l2(
    points: Float[Tensor, "m n d"], normals: Float[Tensor, "n d"], residuals: Float[Tensor, "m n"]
) -> Float[Tensor, "m n d"]:
    """Least ‖δ‖₂: pixels move in proportion to |w|, or as far as the box allows."""
    sizes = normals.abs()
    return _at_speeds(
        points, normals, residuals, sizes / _or_one(sizes.amax(-1, keepdim=True))
    )  # squares may underflow


def onto_l1(
    points: Float[Tensor, "m n d"], normals: Float[Tensor, "n d"], residuals: Float[Tensor, "m n"]
) -> Float[Tensor, "m n d"]:
    """Least ‖δ‖₁: pixels move one after another as far as the box allows, those with the largest |w| first."""
    direction, room = _ways(points, normals, residuals)
    sizes = normals.abs()
    few = max(1, sizes.shape[-1] // _FEW)
    moves, enough = _greedy(*sizes.topk(few), room, residuals.abs())
    rows = (~enough).any(0).nonzero().squeeze(1)  # seldom many: sorting all pixels takes five times as long
    if len(rows):
        moves[:, rows], _ = _greedy(*sizes[rows].sort(descending=True), room[:, rows], residuals[:, rows].abs())
    return moves.mul_(direction)


def _at_speeds(points: Tensor, normals: Tensor, residuals: Tensor, speeds: Tensor | None) -> Tensor:
    """Move every pixel by λ times its speed (None: 1), or as far as the box allows."""
    direction, room = _ways(points, normals, residuals)
    amount = _amount(normals.abs(), speeds, room, residuals.abs())
    return torch.minimum(room, amount if speeds is None else amount * speeds).mul_(direction)


def _greedy(sizes: Tensor, order: Tensor, room: Tensor, residuals: Tensor) -> tuple[Tensor, Tensor]:
    """Use up room in this order of pixels until residual is reached; and whether these pixels suffice."""
    order = order.expand(*room.shape[:-1], -1)
    at_most = room.gather(-1, order)
    gains = at_most * sizes
    total = gains.cumsum(-1)
    left = residuals.unsqueeze(-1) - (total - gains)  # for this pixel and those after it
    moves = torch.minimum((left / _or_one(sizes)).clamp_(min=0), at_most)
    return torch.zeros_like(room).scatter_(-1, order, moves), total[..., -1] >= residuals


PROJECTIONS: dict[str, Projection] = {"linf": onto_linf, "l2": onto_l2, "l1": onto_l1}
"""By the name of a threat."""


def _ways(points: Tensor, normals: Tensor, residuals: Tensor) -> tuple[Tensor, Tensor]:
    """The sign with which each pixel moves, and how far it can; both 0 where w is.

    In plain arithmetic, since selecting by masks takes torch many times as long on a CPU.
    """
    direction = normals.sign() * residuals.sign().unsqueeze(-1)
    return direction, direction.clamp(min=0).addcmul_(direction, points, value=-1)


def _amount(sizes: Tensor, speeds: Tensor | None, room: Tensor, residuals: Tensor) -> Tensor:
    """The λ at which Σ sizes·min(λ·speeds, room) = residual, m×n×1; the largest number there is where no λ suffices.

    The sum is concave and piecewise linear in λ, so Newton's method from λ = 0 only ever grows, and each step but the
    last clips another pixel: it ends at the exact root. That takes four to eight steps of a few passes over the pixels,
    a tenth of the time of sorting them by where they clip. A settled row stays, whatever the others do.
    """
    slopes = sizes if speeds is None else sizes * speeds
    amount = torch.zeros_like(residuals)
    for _ in range(room.shape[-1] + 1):
        moved = torch.minimum(room, amount.unsqueeze(-1) if speeds is None else amount.unsqueeze(-1) * speeds)
        missing = residuals - (moved * sizes).sum(-1)
        slope = torch.sub(room, moved, out=moved).sign_().mul_(slopes).sum(-1)
        larger = amount + missing / slope
        grows = (slope > 0) & (larger > amount * (1 + torch.finfo(residuals.dtype).eps))
        if not grows.any():
            break
        amount = torch.where(grows, larger, amount)
    most = (room * sizes).sum(-1)
    amount = torch.where(residuals >= most, torch.finfo(residuals.dtype).max, amount)
    return (amount + 0 * (residuals + most)).unsqueeze(-1)  # comparisons let a NaN pass unseen; this does not


def _or_one(sizes: Tensor) -> Tensor:
    return sizes + (sizes == 0)
