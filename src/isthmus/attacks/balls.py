"""Euclidean projections onto the intersection of a norm ball around 0 and a box around 0; and a linear optimum there.

Clipping to the box after projecting onto the ball gives a point inside both, but not the nearest one: on
images with many black or white pixels it throws away much of the budget (Croce & Hein 2021, "Mind the box").
These are exact.

``wanted``, ``low`` ≤ 0 and ``high`` ≥ 0 have one row per example; so has the result.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_NEWTON_STEPS = 30
_THRESHOLD_STEPS = 100
_CLOSE = 1e-9  # of ε: rounding of float32 is coarser


def onto_linf(
    wanted: Float[Tensor, "n ..."],
    eps: float,
    low: Float[Tensor, "n ..."],
    high: Float[Tensor, "n ..."],
) -> Float[Tensor, "n ..."]:
    """Nearest δ with |δ_i| ≤ ε and low ≤ δ ≤ high: a clip, since the ball is a box too."""
    return wanted.clamp(-eps, eps).clamp(low, high)


def onto_l2(
    wanted: Float[Tensor, "n ..."],
    eps: float,
    low: Float[Tensor, "n ..."],
    high: Float[Tensor, "n ..."],
) -> Float[Tensor, "n ..."]:
    """Nearest δ with ‖δ‖₂ ≤ ε and low ≤ δ ≤ high.

    It is clip(s·wanted, low, high) for the largest s ≤ 1 that fits into the ball (the Karush-Kuhn-Tucker
    conditions). Newton's method on s starts at s = ε/‖wanted‖ and only ever grows: each step spends on the
    free pixels what the clipped ones left over. So every iterate is inside the ball, and the set of clipped
    pixels settles in a few steps.
    """
    rows, a, b = wanted.flatten(1), low.flatten(1), high.flatten(1)
    scale = (eps / torch.linalg.vector_norm(rows, dim=1, keepdim=True)).clamp(max=1)
    for _ in range(_NEWTON_STEPS):
        moved = rows * scale
        clipped = moved.clamp(a, b)
        free = moved == clipped
        spent = torch.where(free, 0, clipped).square().sum(1, keepdim=True)
        room = torch.where(free, rows, 0).square().sum(1, keepdim=True)
        larger = ((eps**2 - spent).clamp(min=0) / room).sqrt().clamp(max=1)
        grows = (room > 0) & (larger > scale * (1 + 1e-7))  # a settled row stays, whatever the others do
        if not grows.any():
            break
        scale = torch.where(grows, larger, scale)
    nearest: Tensor = (rows * scale).clamp(a, b)
    return nearest.view_as(wanted)


def onto_l1(
    wanted: Float[Tensor, "n ..."],
    eps: float,
    low: Float[Tensor, "n ..."],
    high: Float[Tensor, "n ..."],
) -> Float[Tensor, "n ..."]:
    """Nearest δ with ‖δ‖₁ ≤ ε and low ≤ δ ≤ high (as in Croce & Hein 2021).

    It is sign(wanted)·min(max(|wanted| − τ, 0), room), where room is the box's in that direction and τ ≥ 0 is
    the least threshold that fits into the ball.
    """
    rows = wanted.flatten(1)
    room = torch.where(rows > 0, high.flatten(1), -low.flatten(1))
    sizes = rows.abs()
    outside = torch.minimum(sizes, room).sum(1) > eps
    threshold = torch.zeros_like(sizes[:, :1])
    if outside.any():
        threshold[outside] = _threshold(sizes[outside].double(), room[outside].double(), eps).to(sizes.dtype)
    return (rows.sign() * torch.minimum((sizes - threshold).clamp(min=0), room)).view_as(wanted)


def linear_optimum_l1(
    gradient: Float[Tensor, "n ..."],
    eps: float,
    low: Float[Tensor, "n ..."],
    high: Float[Tensor, "n ..."],
) -> Float[Tensor, "n ..."]:
    """The δ with ‖δ‖₁ ≤ ε and low ≤ δ ≤ high that maximises ⟨gradient, δ⟩.

    A fractional knapsack: the pixels of largest |gradient| move as far as the box allows, until ε is spent.
    """
    rows = gradient.flatten(1)
    room = torch.where(rows > 0, high.flatten(1), -low.flatten(1))
    order = rows.abs().argsort(dim=1, descending=True, stable=True)
    sorted_room = room.gather(1, order).double()
    left = (eps - (sorted_room.cumsum(1) - sorted_room)).clamp(min=0)
    sizes = torch.zeros_like(rows).scatter(1, order, torch.minimum(sorted_room, left).to(rows.dtype))
    return (rows.sign() * sizes).view_as(gradient)


def _threshold(sizes: Tensor, room: Tensor, eps: float) -> Tensor:
    """The τ at which Σ min(max(size − τ, 0), room) = ε, per row (n×1), where that sum exceeds ε at τ = 0.

    The sum falls piecewise linearly in τ, so Newton's method is exact once it reaches the right piece; where
    it would leave the interval that must hold τ, the interval is halved instead. No sorting, and few steps.
    """
    low, high = torch.zeros_like(sizes[:, :1]), sizes.amax(1, keepdim=True)
    tau = low
    for _ in range(_THRESHOLD_STEPS):
        left = sizes - tau
        slope = ((left > 0) & (left < room)).sum(1, keepdim=True)
        excess = torch.minimum(left.clamp_(min=0), room).sum(1, keepdim=True) - eps
        low, high = torch.where(excess > 0, tau, low), torch.where(excess < 0, tau, high)
        there = excess.abs() <= _CLOSE * eps
        if there.all():
            break
        following = tau + excess / slope  # infinite on a flat piece, and then outside
        within = (following > low) & (following < high)
        tau = torch.where(there, tau, torch.where(within, following, (low + high) / 2))
    return tau
