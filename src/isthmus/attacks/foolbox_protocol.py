"""How Foolbox 1 measured minimal ℓ∞ norms, for numbers that are to be compared with papers that used it.

Both attacks try one ε after another and keep the smallest perturbation that succeeded, so that accuracy at any ε is
the share of examples whose norm is larger (:meth:`isthmus.attacks.minimal_norm.MinimalNorms.accuracy`). They are the
attacks of Rauber, Brendel & Bethge 2017 (arXiv:1707.04131) at their defaults, not strong ones; for strength take fmn.

Foolbox's C&W reports the mean squared error: ‖δ‖₂ = √(MSE · pixels).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.attacks.attack import AttackState, IterativeAttack, SingleShotAttack, counters
from isthmus.attacks.engine.batch import Batch, per_image
from isthmus.attacks.engine.counted_model import Answer, CountedModel
from isthmus.attacks.engine.rounding import beyond_rounding
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.minimal_norm import MinimalNorms, minimal_norms
from isthmus.attacks.threats import Threat
from isthmus.core.randomness import fold, uniform

LEVELS, FINER = 1000, 20  # of ε in (0, 1], and again below a success among the first so many
FIRST_EPS, FACTOR = 0.3, 1.5  # the first ball, and how much larger the next one is while none has sufficed
STEP_SHARE, STEPS = 1 / 30, 40  # of ε; in one ball
TRIALS = 20  # balls while growing, and again while bisecting


def scan_fgsm(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    seed: int = 0,
    options: RunOptions | None = None,
) -> MinimalNorms:
    """FGSM at ε = 0.001, 0.002, ..., 1: one gradient at the image, one forward pass for each level until a success.

    If one of the first 20 levels succeeds, 20 finer ones up to it are tried. Several levels of an example may be tried
    in one batch, so the passes slightly exceed the levels needed.

    ``seed``, ``options`` and errors are those of :func:`isthmus.attacks.minimal_norm.minimal_norms`.
    """
    return minimal_norms(model, images, labels, "linf", [ScannedFGSM()], seed, options)


def bisect_pgd(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    seed: int = 0,
    options: RunOptions | None = None,
    *,
    bisections: int = TRIALS,
) -> MinimalNorms:
    """PGD in a ball of ε = 0.3, half as large again up to 20 times until it succeeds; then 20 bisections of ε.

    In each ball 40 sign steps of ε/30 on the cross-entropy from a fresh random start, up to the first success. The
    start is clipped to the box and may itself be the success.

    Fewer ``bisections`` cost less and determine ε less exactly: within 0.3/2^bisections, for an image that breaks in
    the first ball. ``seed``, ``options`` and errors are those of :func:`isthmus.attacks.minimal_norm.minimal_norms`.
    """
    return minimal_norms(model, images, labels, "linf", [BisectedPGD(bisections=bisections)], seed, options)


class ScannedFGSM(SingleShotAttack):
    """The image at each example's first level of ε that succeeds; the original if none does."""

    name: Literal["fgsm_scan"] = "fgsm_scan"

    def perturb(self, counted_model: CountedModel, batch: Batch, threat: Threat) -> Float[Tensor, "n c h w"]:
        """Scan all levels, then the finer ones below a small success."""
        answer = counted_model.query(batch.images, batch.keys, lambda logits: batch.ascend("ce", logits))
        direction = torch.where(answer.gradient.isnan(), answer.gradient, answer.gradient.sign())
        grid = torch.arange(1, LEVELS + 1, dtype=torch.float64, device=direction.device) / LEVELS
        coarse = _first_success(counted_model, batch, direction, grid.expand(len(batch), -1))
        again = ((coarse >= 0) & (coarse < FINER)).nonzero().squeeze(1)
        eps = torch.where(coarse >= 0, grid[coarse.clamp(min=0)], 0)
        if len(again):
            finer = eps[again, None] * torch.arange(1, FINER + 1, device=direction.device) / FINER
            at = _first_success(counted_model, batch.take(again), direction[again], finer)
            # the last of the finer levels succeeded before; rounding or noise may have changed that
            eps[again] = finer.gather(1, at.where(at >= 0, FINER - 1)[:, None]).squeeze(1)
        return _shifted(batch.images, direction, eps)


def _first_success(
    counted_model: CountedModel, batch: Batch, direction: Tensor, grid: Float[Tensor, "n levels"]
) -> Int[Tensor, " n"]:
    """Position of the first ε in each row of the grid that succeeds, −1 where none does.

    As examples succeed, the others are tried at more levels at once: the batch stays full.
    """
    n, levels = grid.shape
    found = torch.full((n,), -1, device=grid.device)
    left, level = torch.arange(n, device=grid.device), 0
    while len(left) and level < levels:
        width = min(max(n // len(left), 1), levels - level)
        rows = left.repeat_interleave(width)
        eps = grid[left, level : level + width].flatten()
        some = batch.take(rows)
        logits = counted_model.logits(_shifted(some.images, direction[rows], eps), some.keys)
        hit = beyond_rounding(some, logits).view(-1, width)
        some_hit = hit.any(1)
        found[left[some_hit]] = level + hit[some_hit].int().argmax(1)
        left, level = left[~some_hit], level + width
    return found


def _shifted(images: Tensor, direction: Tensor, eps: Tensor) -> Tensor:
    return (images + per_image(eps.to(images.dtype), images) * direction).clamp(0, 1)


@dataclass
class BisectionState(AttackState):
    """PGD in one ball, and the bisection of balls.

    Attributes:
        eps, low, high: radius of the ball, the largest that did not suffice (0 until one has not while bisecting), and
            the smallest that did (∞ before one has).
        trial: balls tried in this phase, growing or bisecting.
        ball_step: steps taken in this one.
    """

    eps: Float[Tensor, " n"]
    low: Float[Tensor, " n"]
    high: Float[Tensor, " n"]
    trial: Int[Tensor, " n"]
    ball_step: Int[Tensor, " n"]


class BisectedPGD(IterativeAttack[BisectionState]):
    """Each row in its own ball, at its own step."""

    inside: ClassVar[bool] = False

    name: Literal["pgd_bisect"] = "pgd_bisect"
    bisections: int = TRIALS

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> BisectionState:
        """At random in the first ball."""
        n = len(batch)
        step, budget = counters(n, 2 * TRIALS * (STEPS + 1), batch.images)
        eps = batch.images.new_full((n,), FIRST_EPS)
        high, whole = torch.full_like(eps, torch.inf), torch.zeros_like(step)
        x = _start(batch, whole, eps)
        return BisectionState(x, step, budget, eps, torch.zeros_like(eps), high, whole, whole.clone())

    def step(self, state: BisectionState, batch: Batch, answer: Answer) -> None:
        """A step; or the next ball, after a success or the last step in this one."""
        won = batch.reached(answer.logits)
        state.step += 1
        over = won | (state.ball_step >= STEPS)
        direction = torch.where(answer.gradient.isnan(), answer.gradient, answer.gradient.sign())
        eps = per_image(state.eps, direction)
        moved = (state.x - batch.images).add_(STEP_SHARE * eps * direction).clamp(-eps, eps)
        state.x = moved.add_(batch.images).clamp_(0, 1)
        state.ball_step += 1
        if over.any():
            self._next_ball(state, batch, over, won)

    def _next_ball(self, state: BisectionState, batch: Batch, over: Tensor, won: Tensor) -> None:
        growing = state.high.isinf()
        state.trial += over
        spent = over & ~(growing & won) & (state.trial >= torch.where(growing, TRIALS, self.bisections))
        state.trial = state.trial.masked_fill(over & growing & won, 0)
        state.high = torch.where(over & won, state.eps, state.high)
        state.low = torch.where(over & ~won & ~growing, state.eps, state.low)
        following = torch.where(growing & ~won, state.eps * FACTOR, (state.low + state.high) / 2)
        state.eps = torch.where(over, following, state.eps)
        state.budget = torch.where(spent, state.step, state.budget)
        again = (over & ~spent).nonzero().squeeze(1)
        state.x[again] = _start(batch.take(again), state.step[again], state.eps[again])
        state.ball_step[again] = 0


def _start(batch: Batch, draw: Tensor, eps: Tensor) -> Tensor:
    noise = 2 * uniform(fold(batch.keys, "foolbox_protocol/start", draw), tuple(batch.images.shape[1:])) - 1
    return _shifted(batch.images, noise, eps)
