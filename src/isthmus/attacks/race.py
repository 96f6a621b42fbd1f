"""Racing: nearly the robust accuracy of AutoAttack for a fraction of its passes (the ``fast`` suite).

AutoAttack spends most passes on examples that are far from broken, and on unpromising directions. Here directions
compete, example by example:

1. apgd-ce: APGD on the cross-entropy, 20 steps. It breaks the easy examples.
2. apgd-race: APGD towards each of the nine likeliest wrong classes for 10 steps; the three with the smallest margins
   get 30, and the best of those 100. A run retires at the end of a window of steps if even twice the gain of that
   window, in each window left, would not break the example.
3. apgd-nearest: the tenth of the examples with the smallest margins get the three best classes and the cross-entropy
   again for 100 steps, from two starts each, and no run retires.
4. square-sample: Square, which needs no gradients, on that tenth and on 50 others drawn at random.
5. square-nearest, square-next, square-all: Square with AutoAttack's number of queries, as long as it pays. If it broke
   one of that tenth, it runs on the nearest twentieth; if it breaks one there, on twice as many behind them; and if it
   breaks one of these, on all. If it broke one of the 50, gradients are masked and the margin misleads: then it runs on
   all at once.

Every success is verified like any other, so the result is always an upper bound on robust accuracy. The rule can miss
an example that would have broken with more passes; the exhaustive suite, ``standard``, gives them to all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor

from isthmus.attacks.apgd import APGD, APGDState, SparseAPGD
from isthmus.attacks.attack import Attack, IterativeAttack, Stage
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.square import Square
from isthmus.attacks.threats import L1, Threat
from isthmus.core.randomness import fold, uniform

Whole = Annotated[int, Field(gt=0)]
Widths = Annotated[tuple[tuple[Whole, Whole], ...], Field(min_length=1)]


class Race(Attack):
    """The race. ``results/`` shows what most options are worth, on 200 images each for three models.

    Attributes:
        ce_steps: steps of the first run, on the cross-entropy.
        rounds: for each round, how many classes take part and how many steps each gets.
        patience: a run retires if even this many times the last window's gain per window would not break the example.
        near: fraction of the robust examples, smallest margin first, that get the long runs and Square.
        long: steps of the long runs.
        queries: of Square in its first stage.
        drawn: others that Square is tried on.
        more_queries: of Square in the stages that follow if it broke an example.
    """

    name: Literal["race"] = "race"
    ce_steps: Annotated[int, Field(gt=0)] = 20
    rounds: Widths = ((9, 10), (3, 30), (1, 100))
    patience: Annotated[float, Field(gt=0)] = 2.0
    near: Annotated[float, Field(gt=0, le=1)] = 0.1
    long: Annotated[int, Field(gt=0)] = 100
    queries: Annotated[int, Field(gt=1)] = 1000
    drawn: Annotated[int, Field(ge=0)] = 50
    more_queries: Annotated[int, Field(gt=1)] = 5000

    @model_validator(mode="after")
    def _narrowing(self) -> Race:
        widths = [width for width, _ in self.rounds]
        if widths != sorted(widths, reverse=True):
            raise ValueError("each round of the race has at most as many classes as the one before")
        return self

    def stages(self) -> Sequence[Stage]:
        """The race as stages in order, each on the examples that its rule picks.

        Their random streams have the names of earlier labels, since published numbers derive from these.
        """
        rounds, more = RaceRounds(rounds=self.rounds, patience=self.patience), Square(queries=self.more_queries)
        return (
            Stage("apgd-ce", APGD(steps=self.ce_steps), stream="scout"),
            Stage("apgd-race", rounds, stream="race"),
            Stage("apgd-nearest", LongRuns(steps=self.long), partial(pick_near, self), "near"),
            Stage("square-sample", Square(queries=self.queries), partial(pick_sample, self), "search"),
            Stage("square-nearest", more, partial(pick_nearest, self)),
            Stage("square-next", more, partial(pick_next, self)),
            Stage("square-all", more, pick_rest, "search-all"),
        )


# --- which examples a stage attacks ---

_DRAWN, _NEAR, _NEAREST, _NEXT = 1, 2, 3, 4
"""Marks of the examples that Square attacked, by its last stage that did."""


def pick_near(race: Race, state: EvaluationState, keys: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """The nearest robust examples. From here on, ``ranked`` has the classes in the order of the race."""
    first_width = min(race.rounds[0][0], state.ranked.shape[1])
    state.ranked = _by_score(state.ranked, state.scores[:, :first_width])
    return nearest(state, race.near)


def pick_sample(race: Race, state: EvaluationState, keys: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """The nearest again, and some others drawn by their keys, which are marked."""
    close = nearest(state, race.near)
    others = (state.robust & ~close).nonzero().squeeze(1)
    order = uniform(fold(keys[others], "race/sample"), (1,)).squeeze(1).argsort(stable=True)
    drawn = others[order[: race.drawn]]
    state.marks = torch.where(close, _NEAR, 0).to(state.marks).index_fill(0, drawn, _DRAWN)
    return state.marks > 0


def pick_nearest(race: Race, state: EvaluationState, keys: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Half as many as the nearest before, if Square broke one of those; none if all will be attacked."""
    if _broke(state, _DRAWN) or not _broke(state, _NEAR):
        return torch.zeros_like(state.robust)
    return _marked(state, _NEAREST, nearest(state, race.near / 2))


def pick_next(race: Race, state: EvaluationState, keys: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """As many as the nearest at first, behind those that Square has attacked since, if it broke one of these."""
    if not _broke(state, _NEAREST):
        return torch.zeros_like(state.robust)
    return _marked(state, _NEXT, nearest(state, race.near, state.robust & (state.marks != _NEAREST)))


def pick_rest(state: EvaluationState, keys: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """All robust examples that have not had as many queries, if Square broke one that was drawn or of the next."""
    if not _broke(state, _DRAWN) and not _broke(state, _NEXT):
        return torch.zeros_like(state.robust)
    return state.robust & (state.marks != _NEAREST) & (state.marks != _NEXT)


def _broke(state: EvaluationState, mark: int) -> bool:
    """Whether an example with this mark is broken."""
    return bool((state.broken & (state.marks == mark)).any())


def _marked(state: EvaluationState, mark: int, rows: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """These rows, which get a mark."""
    state.marks = torch.where(rows, mark, state.marks)
    return rows


def nearest(state: EvaluationState, share: float, among: Bool[Tensor, " n"] | None = None) -> Bool[Tensor, " n"]:
    """This fraction of the robust examples (or of some), rounded up: those with the smallest margins."""
    rows = (state.robust if among is None else among).nonzero().squeeze(1)
    chosen = rows[state.margin[rows].argsort(stable=True)[: math.ceil(share * len(rows))]]
    return torch.zeros_like(state.robust).index_fill(0, chosen, True)


def _by_score(classes: Int[Tensor, "n classes"], scores: Float[Tensor, "n scores"]) -> Int[Tensor, "n classes"]:
    """The first classes ordered by their scores, smallest first; the rest as they were."""
    width = scores.shape[1]
    order = scores.nan_to_num(nan=torch.inf).argsort(dim=1, stable=True)
    return torch.cat([classes[:, :width].gather(1, order), classes[:, width:]], 1)


# --- the runs of a stage ---


class APGDRuns(IterativeAttack[Any], ABC):
    """Runs of an APGD whose number, target classes and budgets the race decides."""

    _apgd: Any = PrivateAttr(None)

    @abstractmethod
    def apgd(self, threat: Threat) -> APGD | SparseAPGD:
        """The APGD of these runs for one threat."""

    def for_threat(self, threat: Threat, classes: int) -> IterativeAttack[Any]:
        """The runs for one threat, with the APGD for it."""
        copied = self._copy_for(threat, classes)
        copied._apgd = self.apgd(threat).for_threat(threat, classes)
        return copied

    @property
    def inside(self) -> bool:
        """Whether every iterate is inside the ball, as the APGD's."""
        return bool(self._apgd.inside)

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> Any:
        """Start as the APGD."""
        return self._apgd.init(batch, number)

    def objective(self, state: Any, batch: Batch, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """The loss of the APGD."""
        values: Tensor = self._apgd.objective(state, batch, logits)
        return values

    def step(self, state: Any, batch: Batch, answer: Answer) -> None:
        """A step of the APGD."""
        self._apgd.step(state, batch, answer)


class RaceRounds(APGDRuns):
    """Successive halving over target classes: rounds of directed runs, fewer classes and more steps each time.

    Attributes:
        rounds, patience: as in :class:`Race`.
    """

    rounds: Widths
    patience: float

    def apgd(self, threat: Threat) -> APGD | SparseAPGD:
        """On the directed DLR in ℓ∞ and ℓ2, where hopeless runs retire; in ℓ1 on the directed margin."""
        if isinstance(threat, L1):
            return SparseAPGD(loss="margin", wide=False)
        return RetiringAPGD(loss="dlr", patience=self.patience)

    @property
    def widths(self) -> list[int]:
        """Classes that take part in each round."""
        return [min(width, self._classes - 1) for width, _ in self.rounds]

    @property
    def firsts(self) -> list[int]:
        """Number of the first run in each round."""
        return [sum(self.widths[:earlier]) for earlier in range(len(self.rounds))]

    @property
    def runs(self) -> int:
        """All runs of all rounds."""
        return sum(self.widths)

    def after(self, number: int) -> int:
        """All runs of the rounds before: they choose which classes take part."""
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
        """Start uniformly in the ball, with the steps of the run's round."""
        per_run = [steps for (_, steps), width in zip(self.rounds, self.widths, strict=True) for _ in range(width)]
        start = self.threat.random_start(batch.images, batch.keys)
        return self._apgd.climb(start, torch.tensor(per_run, device=number.device)[number])

    def step(self, state: Any, batch: Batch, answer: Answer) -> None:
        """A step of the APGD; in ℓ1 the first goes to the linearised margin's optimum, exact on linear models."""
        first = state.step == 0
        super().step(state, batch, answer)
        if isinstance(self.threat, L1) and first.any():
            state.x[first] = self.threat.linear_optimum(answer.gradient[first], batch.images[first])


class RetiringAPGD(APGD):
    """APGD whose hopeless runs end early.

    Attributes:
        patience: as in :class:`Race`.
    """

    patience: float

    def _close_window(self, state: APGDState, due: Tensor, halve: Tensor) -> None:
        gain = state.best_loss - state.loss_before
        windows_left = (state.budget - state.step) / state.window
        hopeless = due & (state.best_loss + self.patience * gain * windows_left < 0)
        state.budget = torch.where(hopeless, state.step + 1, state.budget)
        super()._close_window(state, due, halve)


class LongRuns(APGDRuns):
    """Long runs towards the three best classes and on the cross-entropy, from two starts each.

    Attributes:
        steps: of each run.
    """

    starts: ClassVar[int] = 2
    best: ClassVar[int] = 3
    steps: int

    def apgd(self, threat: Threat) -> APGD | SparseAPGD:
        """APGD with these steps; in ℓ1 from wide balls."""
        return SparseAPGD(steps=self.steps) if isinstance(threat, L1) else APGD(steps=self.steps)

    @property
    def n_targets(self) -> int:
        """How many of the best classes."""
        return min(self.best, self._classes - 1)

    @property
    def runs(self) -> int:
        """One for each class and one for the cross-entropy, from each start."""
        return self.starts * (self.n_targets + 1)

    def target_class(
        self, number: int, ranked: Int[Tensor, "n classes"], scores: Float[Tensor, "n runs"], keys: Int[Tensor, " n"]
    ) -> Int[Tensor, " n"] | None:
        """The best classes in turn, then none: that run ascends the cross-entropy."""
        place = number % (self.n_targets + 1)
        return ranked[:, place] if place < self.n_targets else None

    def objective(self, state: Any, batch: Batch, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """Directed DLR if the row has a target class, else the cross-entropy."""
        if batch.target_class is None or batch.targets is not None:
            return batch.ascend("dlr", logits)
        return torch.where(batch.target_class >= 0, batch.ascend("dlr", logits), batch.ascend("ce", logits))
