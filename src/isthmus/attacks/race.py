"""Racing: the trust of AutoAttack for a fraction of its passes (the ``fast`` suite).

Most of AutoAttack's passes go to examples that are far from breaking, and to directions that are going nowhere. So,
example by example, directions compete:

1. scout: APGD on the cross-entropy, 20 steps. What is easy breaks here.
2. race: APGD towards each of the nine likeliest wrong classes for 10 steps; the three that came closest get 30, and
   the best of those 100. A run retires at the end of a window of steps when, at twice the pace of that window, it would
   not get there in the windows left.
3. near: examples whose smallest gap is among the nearest tenth get the three best classes and the cross-entropy again
   for 100 steps, from two starts each, and nobody retires.
4. search: Square, which needs no gradients, on that nearest tenth and on 50 others drawn at random. Where gradients are
   masked, the gap misleads; the 50 tell.
5. search-all: if Square broke one of the 50 that gradients had left, the ranking cannot be trusted, and it is run on
   all that stand.

Whatever breaks is judged and kept as a witness like any other, so the result is always an upper bound on robust
accuracy. What the rule can miss is an example that stands for want of the passes it was not given; the exhaustive
suite, ``standard``, gives them to all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from isthmus.attacks import apgd, square
from isthmus.attacks.apgd import Apgd, Climb
from isthmus.attacks.apgd_l1 import SparseApgd, SparseClimb
from isthmus.attacks.attack import Attack
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.iterative import IterativeAttack
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.threats import L1, Threat
from isthmus.core.config import Component
from isthmus.core.randomness import fold, uniform

Whole = Annotated[int, Field(gt=0)]


class Config(Component):
    """Options of the race. ``results/`` has what most of them are worth, on 200 images each for three models.

    Attributes:
        scout: steps of the cross-entropy's first run.
        rounds: for each round, how many classes take part and how many steps each gets.
        patience: a run retires when even this many times the last window's gain per window would not break it.
        near: share of the standing examples, nearest first, that get the long runs and Square.
        long: steps of the long runs.
        queries: of Square.
        drawn: others that Square is tried on.
    """

    name: Literal["race"] = "race"
    scout: Annotated[int, Field(gt=0)] = 20
    rounds: Annotated[tuple[tuple[Whole, Whole], ...], Field(min_length=1)] = ((9, 10), (3, 30), (1, 100))
    patience: Annotated[float, Field(gt=0)] = 2.0
    near: Annotated[float, Field(gt=0, le=1)] = 0.1
    long: Annotated[int, Field(gt=0)] = 100
    queries: Annotated[int, Field(gt=1)] = 1000
    drawn: Annotated[int, Field(ge=0)] = 50

    @model_validator(mode="after")
    def _narrowing(self) -> Config:
        widths = [width for width, _ in self.rounds]
        if widths != sorted(widths, reverse=True):
            raise ValueError("each round of the race has at most as many classes as the one before")
        return self


def stages(config: Config) -> Sequence[Attack]:
    """The race as attacks in order, each on the examples that its rule picks."""
    return (
        Attack("scout", apgd.Config(steps=config.scout), search=apgd.search),
        Attack("race", config, search=race),
        Attack("near", config, search=near, among=partial(pick_near, config)),
        Attack(
            "search", square.Config(queries=config.queries), search=square.search, among=partial(pick_sample, config)
        ),
        Attack("search-all", square.Config(queries=config.queries), search=square.search, among=pick_rest_if_needed),
    )


# --- who goes on ---


def pick_near(config: Config, state: EvaluationState, keys: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """The nearest of those that stand; and the classes, from now on, in the order of the race."""
    rounds = _widths(config, state.ranked.shape[1])
    state.ranked = _by_score(state.ranked, state.scores[:, : rounds[0]])
    return nearest(state, config.near)


def pick_sample(config: Config, state: EvaluationState, keys: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """The nearest again, and some others drawn by their keys, which are marked."""
    close = nearest(state, config.near)
    others = (state.robust & ~close).nonzero().squeeze(1)
    order = uniform(fold(keys[others], "race/sample"), (1,)).squeeze(1).argsort(stable=True)
    drawn = others[order[: config.drawn]]
    state.marks = torch.zeros_like(state.marks).index_fill(0, drawn, 1)
    return close | (state.marks > 0)


def pick_rest_if_needed(state: EvaluationState, keys: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """All that Square was not tried on, if it broke one that was drawn; else nobody."""
    untried = state.done == 0
    return untried & bool((state.broken & (state.marks > 0)).any())


def nearest(state: EvaluationState, share: float) -> Bool[Tensor, " n"]:
    """This share of the standing examples, rounded up: those with the smallest gaps."""
    rows = state.robust.nonzero().squeeze(1)
    chosen = rows[state.margin[rows].argsort(stable=True)[: math.ceil(share * len(rows))]]
    return torch.zeros_like(state.robust).index_fill(0, chosen, True)


def _widths(config: Config, others: int) -> list[int]:
    """Classes that take part in each round, where a model has ``others`` wrong classes."""
    return [min(width, others) for width, _ in config.rounds]


def _by_score(classes: Int[Tensor, "n classes"], scores: Float[Tensor, "n scores"]) -> Int[Tensor, "n classes"]:
    """The first classes ordered by their scores, smallest first; the rest as they were."""
    width = scores.shape[1]
    order = scores.nan_to_num(nan=torch.inf).argsort(dim=1, stable=True)
    return torch.cat([classes[:, :width].gather(1, order), classes[:, width:]], 1)


# --- how they run ---


def race(config: Config, threat: Threat, classes: int) -> IterativeAttack[Any]:
    """Successive halving over the classes that a run is directed at."""
    return SparseRace(config, threat, classes) if isinstance(threat, L1) else ClimbingRace(config, threat, classes)


def near(config: Config, threat: Threat, classes: int) -> IterativeAttack[Any]:
    """Long runs towards the best classes and on the cross-entropy."""
    return SparseNear(config, threat, classes) if isinstance(threat, L1) else ClimbingNear(config, threat, classes)


class Race(IterativeAttack[Any]):
    """Rounds of directed runs on the DLR loss: fewer classes and more steps each time."""

    threat: Threat
    climb: Any  # of the APGD that it is mixed with

    def __init__(self, config: Config, classes: int) -> None:
        self.patience = config.patience
        self.widths = _widths(config, classes - 1)
        self.firsts = [sum(self.widths[:earlier]) for earlier in range(len(self.widths))]
        rounds = zip(config.rounds, self.widths, strict=True)
        self.lengths = torch.tensor([steps for (_, steps), width in rounds for _ in range(width)])
        self.runs = len(self.lengths)

    def after(self, number: int) -> int:
        """All of the rounds before: they choose who takes part."""
        return max(first for first in self.firsts if first <= number)

    def target_class(
        self, number: int, ranked: Int[Tensor, "n classes"], scores: Float[Tensor, "n runs"], keys: Int[Tensor, " n"]
    ) -> Int[Tensor, " n"] | None:
        """In the first round the classes as ranked; in each later one the best of the round before."""
        classes = ranked
        for first, width in zip(self.firsts, self.widths, strict=True):
            if number < first + width:
                return classes[:, number - first]
            classes = _by_score(classes[:, :width], scores[:, first : first + width])
        raise AssertionError(number)

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> Any:
        """Uniformly in the ball."""
        start = self.threat.random_start(batch.images, batch.keys)
        return self.climb(start, self.lengths.to(number.device)[number])


class ClimbingRace(Race, Apgd):
    """The race in ℓ∞ and ℓ2, where hopeless runs retire."""

    def __init__(self, config: Config, threat: Threat, classes: int) -> None:
        Apgd.__init__(self, "dlr", config.long, threat, targets=classes - 1)
        Race.__init__(self, config, classes)

    def _close_window(self, runs: Climb, due: Tensor, halve: Tensor) -> None:
        gain = runs.best_loss - runs.loss_before
        windows_left = (runs.budget - runs.step) / runs.window
        hopeless = due & (runs.best_loss + self.patience * gain * windows_left < 0)
        runs.budget = torch.where(hopeless, runs.step + 1, runs.budget)
        super()._close_window(runs, due, halve)


class SparseRace(Race, SparseApgd):
    """The race in ℓ1. A run's first step goes to the linearised margin's optimum, which is exact on linear models."""

    threat: L1

    def __init__(self, config: Config, threat: L1, classes: int) -> None:
        SparseApgd.__init__(self, "margin", config.long, threat, targets=classes - 1, widely=False)
        Race.__init__(self, config, classes)

    def step(self, runs: SparseClimb, batch: Batch, answer: Answer) -> None:
        """As APGD in ℓ1, but for the first step."""
        first = runs.step == 0
        super().step(runs, batch, answer)
        if first.any():
            runs.x[first] = self.threat.linear_optimum(answer.gradient[first], batch.images[first])


class Near(IterativeAttack[Any]):
    """The three best classes and the cross-entropy, from two starts each."""

    starts, best = 2, 3
    targets: int

    def target_class(
        self, number: int, ranked: Int[Tensor, "n classes"], scores: Float[Tensor, "n runs"], keys: Int[Tensor, " n"]
    ) -> Int[Tensor, " n"] | None:
        """The best classes in turn, then none: that run ascends the cross-entropy."""
        place = number % (self.targets + 1)
        return ranked[:, place] if place < self.targets else None

    def objective(self, runs: Any, batch: Batch, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """Directed DLR where there is an aim, else the cross-entropy."""
        if batch.target_class is None or batch.targets is not None:
            return batch.ascend("dlr", logits)
        return torch.where(batch.target_class >= 0, batch.ascend("dlr", logits), batch.ascend("ce", logits))


class ClimbingNear(Near, Apgd):
    """Long runs in ℓ∞ and ℓ2."""

    def __init__(self, config: Config, threat: Threat, classes: int) -> None:
        Apgd.__init__(self, "dlr", config.long, threat, targets=min(self.best, classes - 1))
        self.runs = self.starts * (self.targets + 1)


class SparseNear(Near, SparseApgd):
    """Long runs in ℓ1, from wide balls."""

    def __init__(self, config: Config, threat: Threat, classes: int) -> None:
        SparseApgd.__init__(self, "dlr", config.long, threat, targets=min(self.best, classes - 1))
        self.runs = self.starts * (self.targets + 1)
