"""APGD: PGD that chooses its own step sizes (Croce & Hein 2020, arXiv:2003.01690, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.attacks.apgd_l1 import APGDOptions, SparseAPGD
from isthmus.attacks.attack import AttackState, IterativeAttack, counters
from isthmus.attacks.engine.batch import Batch, per_image
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.threats import L1, Threat

FIRST_WINDOW, SHRINK, LEAST = 0.22, 0.03, 0.06  # of the budget: the first window, how each is shorter, the shortest
RISES = 0.75  # share of a window's steps that must raise the loss
MOMENTUM = 0.75  # weight of the new step against the last one


@dataclass
class APGDState(AttackState):
    """A run of APGD: its last and best images, and the bookkeeping of its step size."""

    previous: Float[Tensor, "n c h w"]
    best: Float[Tensor, "n c h w"]
    best_gradient: Float[Tensor, "n c h w"]
    best_loss: Float[Tensor, " n"]
    loss: Float[Tensor, " n"]
    size: Float[Tensor, " n"]
    window: Int[Tensor, " n"]
    counted: Int[Tensor, " n"]
    rises: Int[Tensor, " n"]
    loss_before: Float[Tensor, " n"]
    halved: Bool[Tensor, " n"]


class APGD(APGDOptions[APGDState]):
    """Ascent with momentum from a random start, and a step size that halves if a window of steps gains too little.

    ``apgd:20`` is short for 20 steps. The options are those of :class:`isthmus.attacks.apgd_l1.APGDOptions`. In ℓ1 it
    is :class:`isthmus.attacks.apgd_l1.SparseAPGD`.
    """

    name: Literal["apgd"] = "apgd"

    def bind(self, threat: Threat, classes: int) -> IterativeAttack[Any]:
        """The attack for one threat; in ℓ1 the sparse variant."""
        if isinstance(threat, L1):
            return SparseAPGD(**self.model_dump(exclude={"name"})).bind(threat, classes)
        return super().bind(threat, classes)

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> APGDState:
        """Start uniformly in the ball."""
        return self.climb(self.threat.random_start(batch.images, batch.keys), self.steps)

    def climb(self, x: Float[Tensor, "n c h w"], steps: int | Int[Tensor, " n"]) -> APGDState:
        """New runs from these images with a first step of 2ε; ``steps`` is one number for all or one for each."""
        n = len(x)
        step, budget = counters(n, steps, x)
        low = x.new_full((n,), -torch.inf)
        return APGDState(
            x=x,
            step=step,
            budget=budget,
            previous=x.clone(),
            best=x.clone(),
            best_gradient=torch.zeros_like(x),
            best_loss=low,
            loss=low.clone(),
            size=x.new_full((n,), 2 * self.threat.eps),
            window=_fraction(budget, FIRST_WINDOW),
            counted=torch.zeros_like(step),
            rises=torch.zeros_like(step),
            loss_before=low.clone(),
            halved=torch.ones_like(step, dtype=torch.bool),
        )

    def step(self, state: APGDState, batch: Batch, answer: Answer) -> None:
        """Record the answer, perhaps halve the step size and return to the best image, then step."""
        gradient = self._record(state, answer)
        self._move(state, batch, gradient)
        state.step += 1

    def _record(self, state: APGDState, answer: Answer) -> Tensor:
        """Record loss and gradient at x; at the end of a window, rewind runs that gained too little."""
        began = state.step > 0
        better = answer.loss > state.best_loss
        state.best = torch.where(per_image(better, state.x), state.x, state.best)
        state.best_gradient = torch.where(per_image(better, state.x), answer.gradient, state.best_gradient)
        state.best_loss = torch.where(better, answer.loss, state.best_loss)
        state.rises += began & (answer.loss > state.loss)
        state.counted += began
        state.loss_before = torch.where(began, state.loss_before, answer.loss)
        state.loss = answer.loss
        due = state.counted == state.window
        if not due.any():
            return answer.gradient
        few = state.rises <= RISES * state.window
        stuck = ~state.halved & (state.best_loss <= state.loss_before)
        halve = due & (few | stuck)
        self._close_window(state, due, halve)
        gradient = torch.where(per_image(halve, state.x), state.best_gradient, answer.gradient)
        state.x = torch.where(per_image(halve, state.x), state.best, state.x)
        return gradient

    def _close_window(self, state: APGDState, due: Tensor, halve: Tensor) -> None:
        state.size = torch.where(halve, state.size / 2, state.size)
        state.halved = torch.where(due, halve, state.halved)
        state.loss_before = torch.where(due, state.best_loss, state.loss_before)
        shorter = torch.maximum(state.window - _fraction(state.budget, SHRINK), _fraction(state.budget, LEAST))
        state.window = torch.where(due, shorter, state.window)
        state.counted = state.counted.masked_fill(due, 0)
        state.rises = state.rises.masked_fill(due, 0)

    def _move(self, state: APGDState, batch: Batch, gradient: Tensor) -> None:
        stepped = self.threat.project(self.threat.step(state.x, gradient, state.size), batch.images)
        share = per_image(torch.where(state.step > 0, MOMENTUM, 1.0), stepped)
        moved = state.x + share * (stepped - state.x) + (1 - share) * (state.x - state.previous)
        state.previous, state.x = state.x, self.threat.project(moved, batch.images)


def _fraction(budget: Tensor, share: float) -> Tensor:
    return (budget * share).long().clamp(min=1)
