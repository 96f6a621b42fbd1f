"""Square: random search with square windows, from logits alone (Andriushchenko et al. 2020, arXiv:1912.00049).

It needs no gradient, so hidden or shattered gradients do not protect a model from it. Follows the authors' code in
AutoAttack, but every row has a window, size and signs of its own, where that code moves the same window of all images;
and windows reach the last row and column, if seldom, which that code leaves out.

In ℓ2 a bump's hill and hollow cancel, so that a model which weighs all pixels alike is hard to attack, for the original
too: on images of 5×7×7, 500 queries lower the margin by 36% of what is possible (the original: 27%).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, PrivateAttr
from torch import Tensor
from torch.nn import functional

from isthmus.attacks.attack import AttackState, IterativeAttack, counters
from isthmus.attacks.engine.batch import Batch, per_image
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.square_windows import SquareWindows, bump, bumps, sides
from isthmus.attacks.threats import L1, Linf, Threat
from isthmus.core.randomness import fold, uniform

_AHEAD = 16  # steps whose random numbers are drawn at once: on a CPU that takes little longer than for one
_TINY = 1e-12
_INSIDE = 1 - 1e-6  # of ε, so that rounding does not lead out of the ball


@dataclass
class SquareState(AttackState):
    """A run of Square: ``x`` is the candidate.

    Attributes:
        best: the image of smallest margin so far.
        margin: that margin.
        spent: ‖δ‖_p^p of it; followed in ℓ2 and ℓ1 only.
        ahead: uniform numbers for the next steps.
        since: steps before the first of these.
    """

    best: Float[Tensor, "n c h w"]
    margin: Float[Tensor, " n"]
    spent: Float[Tensor, " n"]
    ahead: Float[Tensor, "n steps draws"]
    since: Int[Tensor, " n"]


class Square(IterativeAttack[SquareState]):
    """Change one window at a time, and keep what lowers the margin. ``square:1000`` is short for 1000 queries.

    Attributes:
        queries: forward passes of a run, including the first image and the last verification.
        p_init: fraction of the pixels in the first windows; it falls as the budget is spent.
        loss: what to lower; the margin z_y − max_{j≠y} z_j, as in AutoAttack.
        restarts: runs per example.
    """

    argument: ClassVar[str | None] = "queries"
    gradient: ClassVar[bool] = False
    name: Literal["square"] = "square"
    queries: Annotated[int, Field(ge=2)] = 5000
    p_init: Annotated[float, Field(gt=0, le=1)] = 0.8
    loss: Literal["margin"] = "margin"
    restarts: Annotated[int, Field(gt=0)] = 1

    _moves: Any = PrivateAttr(None)

    def for_threat(self, threat: Threat, classes: int) -> IterativeAttack[Any]:
        """The attack for one threat: stripes in ℓ∞, bumps in ℓ2 and ℓ1."""
        copied = self._copy_for(threat, classes)
        copied._moves = (LinfMoves if isinstance(threat, Linf) else L2Moves)(threat, self.p_init, self.steps)
        return copied

    @property
    def steps(self) -> int:
        """Queries of a run before its last candidate, which is verified instead."""
        return self.queries - 1

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> SquareState:
        """At a perturbation of full size everywhere."""
        x = self._moves.first(batch.images, fold(batch.keys, "square/start")).contiguous()
        step, budget = counters(len(x), self.steps, x)
        margin = x.new_full((len(x),), torch.inf)
        spent = torch.zeros_like(margin, dtype=torch.float64)
        ahead = self._ahead(batch.keys, step, x)
        return SquareState(x, step, budget, best=x.clone(), margin=margin, spent=spent, ahead=ahead, since=step.clone())

    def step(self, state: SquareState, batch: Batch, answer: Answer) -> None:
        """Keep the candidate if it is strictly better, and change another window of the best."""
        margin = batch.margin(answer.logits)
        better = (margin < state.margin).nonzero().squeeze(1)
        if len(better):  # usually few rows, so that copying them costs less than choosing among all pixels
            state.margin[better], state.best[better] = margin[better], state.x[better]
            self._moves.kept(state, batch, better)
        state.x = self._moves.candidate(state, batch.images, self._drawn(state, batch.keys))
        state.step += 1

    def end(self, state: SquareState) -> Float[Tensor, "n c h w"]:
        """The images of smallest margin."""
        return state.best

    def _drawn(self, state: SquareState, keys: Int[Tensor, " n"]) -> Float[Tensor, "n draws"]:
        """The numbers of every row's step; if a row has none left, all get new ones."""
        at = state.step - state.since
        if (at >= _AHEAD).any():
            state.ahead, state.since = self._ahead(keys, state.step, state.x), state.step.clone()
            at = torch.zeros_like(at)
        return state.ahead[torch.arange(len(at), device=at.device), at]

    def _ahead(
        self, keys: Int[Tensor, " n"], step: Int[Tensor, " n"], x: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n steps draws"]:
        """A step's numbers depend on the row's key and step alone, whenever they are drawn."""
        steps = step[:, None] + torch.arange(_AHEAD, device=step.device)
        return uniform(fold(keys[:, None], "square/step", steps), (self._moves.numbers + x.shape[1],))


@dataclass(frozen=True)
class Moves(ABC):
    """How runs start and change windows in one threat.

    Attributes:
        numbers: uniform numbers that a step needs, besides one for each channel.
        threat: the ball.
        p_init: as in :class:`Square`.
        steps: of a run.
    """

    numbers: ClassVar[int]
    threat: Threat
    p_init: float
    steps: int

    @abstractmethod
    def first(self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        """The images at which runs start."""

    @abstractmethod
    def candidate(
        self, state: SquareState, images: Float[Tensor, "n c h w"], drawn: Float[Tensor, "n draws"]
    ) -> Float[Tensor, "n c h w"]:
        """The best with another window; ``drawn`` are uniform numbers, the last of them one for each channel."""

    def kept(self, state: SquareState, batch: Batch, rows: Int[Tensor, " some"]) -> None:  # noqa: B027
        """Record what :meth:`candidate` needs to know of the new best images in these rows."""


class LinfMoves(Moves):
    """ℓ∞: from vertical stripes; a window becomes x₀ ± ε, with one sign for each channel (algorithm 2)."""

    numbers: ClassVar[int] = 2

    def first(self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        """x₀ ± ε, one sign for each column and channel."""
        c, _, w = images.shape[1:]
        return (images + self.threat.eps * _signs(uniform(keys, (c, 1, w)))).clamp(0, 1)

    def candidate(
        self, state: SquareState, images: Float[Tensor, "n c h w"], drawn: Float[Tensor, "n draws"]
    ) -> Float[Tensor, "n c h w"]:
        """In a window of the best, x₀ ± ε."""
        shape = images.shape
        side = sides(self.p_init, self.steps, *shape[2:], images.device)[state.step]
        cells = SquareWindows.drawn(drawn[:, :2], side, shape).cells(shape)
        moved = images.flatten(2).gather(2, cells) + self.threat.eps * _signs(drawn[:, 2:, None])
        return _changed(state, (cells, moved.clamp_(0, 1)))


class L2Moves(Moves):
    """ℓ2 and ℓ1: from tiles of bumps; a window takes over another's share of the ball (algorithm 3).

    A window's perturbation becomes a bump plus what was there, both scaled to length 1; another window's is wiped.
    The new one has the size of both and of the unspent part of the ball. In ℓ1 it is then projected.
    """

    numbers: ClassVar[int] = 5

    @property
    def power(self) -> int:
        """p of the norm."""
        return 1 if isinstance(self.threat, L1) else 2

    @property
    def eps(self) -> float:
        """Radius, a little reduced against rounding."""
        return self.threat.eps * _INSIDE

    def first(self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        """Tiles of a fifth of the image, each a horizontal or vertical bump, with a sign for each channel."""
        _, c, h, w = images.shape
        side = max(min(h, w) // 5, 1)
        down, across = h // side, w // side
        tile = bump(side, self.power).to(images.device)
        drawn = uniform(keys, (c + 1, down, across, 1, 1))
        tiles = torch.where(drawn[:, :1] < 0.5, tile, tile.mT) * _signs(drawn[:, 1:])
        grid = tiles.transpose(3, 4).reshape(-1, c, down * side, across * side)
        top, left = (h - down * side) // 2, (w - across * side) // 2
        delta = functional.pad(grid, (left, w - across * side - left, top, h - down * side - top))
        if self.power == 1:
            return self.threat.project(images + delta, images)
        return (images + self.eps * delta / per_image(self.threat.norm(delta), delta)).clamp(0, 1)

    def kept(self, state: SquareState, batch: Batch, rows: Int[Tensor, " some"]) -> None:
        """How much of the ball the best now spends."""
        delta = (state.best[rows] - batch.images[rows]).flatten(1)
        state.spent[rows] = self._mass(delta).sum(1, dtype=torch.float64)

    def candidate(
        self, state: SquareState, images: Float[Tensor, "n c h w"], drawn: Float[Tensor, "n draws"]
    ) -> Float[Tensor, "n c h w"]:
        """Two windows of the best changed: one bumped, the other wiped."""
        shape, originals, best = images.shape, images.flatten(2), state.best.flatten(2)
        every, which, shapes = bumps(self.p_init, self.steps, *shape[2:], images.device, self.power)
        here, there = (SquareWindows.drawn(drawn[:, i : i + 2], every[state.step], shape) for i in (0, 2))
        at, wiped = here.cells(shape), there.cells(shape)
        base, blank = originals.gather(2, at), originals.gather(2, wiped)
        before = best.gather(2, at) - base
        counted = here.counted  # there as here: both are of one size
        own = self._total(before, counted)
        freed = self._total(best.gather(2, wiped) - blank, counted & ~here.hold(there))
        unspent = (self.eps**self.power - state.spent).clamp(min=0)[:, None, None]
        hill = shapes[..., : len(here.offsets), : len(here.offsets)][which[state.step], (drawn[:, 4] >= 0.5).long()]
        new = hill.flatten(1)[:, None] * _signs(drawn[:, 5:, None]) + before / (self._length(own) + _TINY)
        share = self._length(unspent / shape[1] + own + freed)
        new *= share / (self._length(self._total(new, counted)) + _TINY)
        if self.power == 2 or shape[1] == 1:  # in the ball; and all other pixels are in the box already
            return _changed(state, (wiped, blank), (at, (base + new).clamp_(0, 1)))
        # C times what the ball has room for, as in AutoAttack: the projection onto the ball thins it out
        x = _changed(state, (wiped, blank), (at, base + shape[1] * new))
        return self.threat.project(x, images).contiguous()

    def _mass(self, delta: Tensor) -> Tensor:
        return delta.abs() if self.power == 1 else delta.square()

    def _total(self, delta: Tensor, counted: Tensor) -> Tensor:
        """‖·‖_p^p of windows by channel; float64, lest the sum depend on how large other rows' windows are."""
        return (self._mass(delta) * counted).sum(2, keepdim=True, dtype=torch.float64)

    def _length(self, total: Tensor) -> Tensor:
        return (total if self.power == 1 else total.sqrt()).float()


def _signs(drawn: Tensor) -> Tensor:
    return torch.where(drawn < 0.5, -1.0, 1.0)


def _changed(state: SquareState, *windows: tuple[Tensor, Tensor]) -> Tensor:
    """The best with these cells set to these values, one window after another; in the candidate's own memory."""
    x = state.x.copy_(state.best)
    flat = x.view(*x.shape[:2], -1)  # fails, rather than copies, where x is not contiguous
    for cells, values in windows:
        flat.scatter_(2, cells, values)
    return x
