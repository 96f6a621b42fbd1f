"""APGD: PGD that chooses its own step sizes (Croce & Hein 2020, arXiv:2003.01690, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from isthmus.attacks.apgd_l1 import SparseApgd
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.iterative import AttackState, Directed, IterativeAttack, counters
from isthmus.attacks.engine.rows import per_image
from isthmus.attacks.threats import L1, Threat
from isthmus.core.config import Component

FIRST_WINDOW, SHRINK, LEAST = 0.22, 0.03, 0.06  # of the budget: the first window, how each is shorter, the shortest
RISES = 0.75  # share of a window's steps that must raise the loss
MOMENTUM = 0.75  # weight of the new step against the last one


class Config(Component):
    """Options of APGD. ``apgd:20`` is short for 20 steps.

    Attributes:
        steps: gradient steps of a run.
        loss: what to ascend, from :mod:`isthmus.attacks.losses`.
        targets: 0 for an untargeted attack; else so many runs per restart, each directed at another wrong class, those
            with the largest clean logits first. With ``loss="dlr"`` this is AutoAttack's APGD-T.
        restarts: of each.
        eot: draws of a random model to average over at each step.
    """

    argument: ClassVar[str | None] = "steps"
    name: Literal["apgd"] = "apgd"
    steps: Annotated[int, Field(gt=0)] = 100
    loss: Literal["ce", "dlr", "margin", "log_odds", "probability"] = "ce"
    targets: Annotated[int, Field(ge=0)] = 0
    restarts: Annotated[int, Field(gt=0)] = 1
    eot: Annotated[int, Field(gt=0)] = 1

    @property
    def label(self) -> str:
        """How results call it."""
        return f"apgd-{self.loss}{'-t' if self.targets else ''}"


def search(config: Config, threat: Threat, classes: int) -> IterativeAttack[Any]:
    """Ascent with momentum from a random start, and a step size that halves where a window of steps gains too little.

    In ℓ1 it is :mod:`isthmus.attacks.apgd_l1`.
    """
    kind = SparseApgd if isinstance(threat, L1) else Apgd
    return kind(config.loss, config.steps, threat, min(config.targets, classes - 1), config.restarts, config.eot)


@dataclass
class Climb(AttackState):
    """A run of APGD: where it was, the best it saw, and the bookkeeping of its step size."""

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


class Apgd(Directed[Climb]):
    """APGD in ℓ∞ and ℓ2, with rows that may differ in budget."""

    def __init__(self, loss: str, steps: int, threat: Threat, targets: int, restarts: int = 1, eot: int = 1) -> None:
        self.loss, self.steps, self.threat, self.targets = loss, steps, threat, targets
        self.runs = max(targets, 1) * restarts
        self.eot = eot

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> Climb:
        """Uniformly in the ball."""
        return self.climb(self.threat.random_start(batch.images, batch.keys), self.steps)

    def climb(self, x: Float[Tensor, "n c h w"], steps: int | Int[Tensor, " n"]) -> Climb:
        """Runs from these images with a first step of 2ε; so many steps, the same for all or one for each."""
        n = len(x)
        step, budget = counters(n, steps, x)
        low = x.new_full((n,), -torch.inf)
        return Climb(
            x=x,
            step=step,
            budget=budget,
            previous=x.clone(),
            best=x.clone(),
            best_gradient=torch.zeros_like(x),
            best_loss=low,
            loss=low.clone(),
            size=x.new_full((n,), 2 * self.threat.eps),
            window=_share(budget, FIRST_WINDOW),
            counted=torch.zeros_like(step),
            rises=torch.zeros_like(step),
            loss_before=low.clone(),
            halved=torch.ones_like(step, dtype=torch.bool),
        )

    def step(self, runs: Climb, batch: Batch, answer: Answer) -> None:
        """Note what was seen, perhaps halve the step and return to the best, then step."""
        gradient = self._note(runs, answer)
        self._step(runs, batch, gradient)
        runs.step += 1

    def _note(self, runs: Climb, answer: Answer) -> Tensor:
        """Enter loss and gradient at x; at the end of a window, rewind runs that gained too little there."""
        began = runs.step > 0
        better = answer.loss > runs.best_loss
        runs.best = torch.where(per_image(better, runs.x), runs.x, runs.best)
        runs.best_gradient = torch.where(per_image(better, runs.x), answer.gradient, runs.best_gradient)
        runs.best_loss = torch.where(better, answer.loss, runs.best_loss)
        runs.rises += began & (answer.loss > runs.loss)
        runs.counted += began
        runs.loss_before = torch.where(began, runs.loss_before, answer.loss)
        runs.loss = answer.loss
        due = runs.counted == runs.window
        if not due.any():
            return answer.gradient
        few = runs.rises <= RISES * runs.window
        stuck = ~runs.halved & (runs.best_loss <= runs.loss_before)
        halve = due & (few | stuck)
        self._close_window(runs, due, halve)
        gradient = torch.where(per_image(halve, runs.x), runs.best_gradient, answer.gradient)
        runs.x = torch.where(per_image(halve, runs.x), runs.best, runs.x)
        return gradient

    def _close_window(self, runs: Climb, due: Tensor, halve: Tensor) -> None:
        runs.size = torch.where(halve, runs.size / 2, runs.size)
        runs.halved = torch.where(due, halve, runs.halved)
        runs.loss_before = torch.where(due, runs.best_loss, runs.loss_before)
        shorter = torch.maximum(runs.window - _share(runs.budget, SHRINK), _share(runs.budget, LEAST))
        runs.window = torch.where(due, shorter, runs.window)
        runs.counted = runs.counted.masked_fill(due, 0)
        runs.rises = runs.rises.masked_fill(due, 0)

    def _step(self, runs: Climb, batch: Batch, gradient: Tensor) -> None:
        stepped = self.threat.project(self.threat.step(runs.x, gradient, runs.size), batch.images)
        share = per_image(torch.where(runs.step > 0, MOMENTUM, 1.0), stepped)
        moved = runs.x + share * (stepped - runs.x) + (1 - share) * (runs.x - runs.previous)
        runs.previous, runs.x = runs.x, self.threat.project(moved, batch.images)


def _share(budget: Tensor, share: float) -> Tensor:
    return (budget * share).long().clamp(min=1)
