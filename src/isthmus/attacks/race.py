"""Racing: nearly the robust accuracy of AutoAttack for a small part of its passes (the ``fast`` suite).

AutoAttack spends most passes on examples that no attack will break, and on unpromising target classes. After a few
steps on the cross-entropy, nearly all examples that will break are among the fifth with the smallest margins. So here
the examples compete for steps, and so do the target classes of each example:

1. apgd-ce: APGD on the cross-entropy, 10 steps, on all. It breaks the easy examples, and orders the others by their
   margins and each one's wrong classes by the logits where its margin is smallest.
2. apgd-3x10, apgd-3x30, apgd-9x100: rounds with fewer and fewer examples, the nearest each time. Each gets runs towards
   its best classes, for example towards 3 of them with 10 steps each; in the last round also one on the cross-entropy.
   A run retires at the end of a window of steps if even twice the gain of that window, in each window left, would not
   break the example. If any of the quarter with the largest margins breaks, the round continues with the next examples.
3. square-nearest: Square, which needs no gradients, on the nearest.
4. square-sample: Square with fewer queries on a random sample of the examples that the first round did not begin with.
5. square-more: Square with AutoAttack's number of queries, only if square-nearest broke an example: on the nearest
   again, and as long as it breaks any, on the next examples, twice as many each time.

The sample tests whether the order by margins can be trusted; it takes part in the first round, too. If an attack breaks
an example of the sample, gradients are masked or margins mislead, and the rounds and the last stage attack all examples
from then on.

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

Share = Annotated[float, Field(gt=0, le=1)]
Whole = Annotated[int, Field(gt=0)]
Rounds = Annotated[tuple[tuple[Share, Whole, Whole], ...], Field(min_length=1, max_length=32)]


class Race(Attack):
    """The race. ``benchmarks/race_ablation.py`` measures what each option is worth.

    Attributes:
        ce_steps: steps of the first run, on the cross-entropy.
        rounds: for each round, the fraction of the robust examples that it begins with, how many target classes each
            has, and how many steps each run gets. The last round has a run on the cross-entropy, too.
        patience: a run retires if even this many times the last window's gain per window would not break the example.
        near: fraction of the robust examples, smallest margin first, that Square attacks.
        queries: of Square on these, at first.
        drawn: size of the sample as a fraction of the robust examples, but at least 10 and at most 50; 0 for none.
        sample_queries: of Square on the sample.
        more_queries: of Square in the last stage.
    """

    name: Literal["race"] = "race"
    ce_steps: Whole = 10
    rounds: Rounds = ((0.3, 3, 10), (0.15, 3, 30), (0.1, 9, 100))
    patience: Annotated[float, Field(gt=0)] = 2.0
    near: Share = 0.05
    queries: Annotated[int, Field(gt=1)] = 1000
    drawn: Annotated[float, Field(ge=0, le=1)] = 0.05
    sample_queries: Annotated[int, Field(gt=1)] = 300
    more_queries: Annotated[int, Field(gt=1)] = 5000

    @model_validator(mode="after")
    def _narrowing(self) -> Race:
        shares = [share for share, _, _ in self.rounds]
        if shares != sorted(shares, reverse=True):
            raise ValueError("each round of the race has at most as many examples as the one before")
        return self

    def stages(self) -> Sequence[Stage]:
        """The race as stages in order, each on the examples that its rule picks."""
        last = len(self.rounds) - 1
        rounds = [
            Stage(
                f"apgd-{classes}x{steps}",
                RaceRuns(width=classes, steps=steps, ce=number == last, patience=self.patience),
                partial(pick_round, self, number),
                grows=True,
                share=share,
            )
            for number, (share, classes, steps) in enumerate(self.rounds)
        ]
        return (
            Stage("apgd-ce", FirstRun(steps=self.ce_steps)),
            *rounds,
            Stage("square-nearest", Square(queries=self.queries), partial(pick_nearest, self), share=self.near),
            Stage("square-sample", Square(queries=self.sample_queries), pick_sample, share=self.drawn),
            Stage("square-more", Square(queries=self.more_queries), partial(pick_more, self), grows=True, share=0.0),
        )


# --- which examples a stage attacks ---

_DRAWN, _LAST, _NEAR, _MORE, _ROUND = 1, 2, 4, 8, 16
"""Bits of ``marks``, which say of an example: it is in the sample; the stage continues if it breaks; Square attacked
it; Square attacked it with more queries; the first round attacked it (the next bits: the second round, and so on)."""

FARTHEST = 0.25
"""A round continues if it breaks one of this fraction of its examples, those with the largest margins."""

LEAST, MOST = 10, 50
"""Smallest and largest size of the sample, if there are as many examples."""


def pick_round(race: Race, number: int, state: EvaluationState, keys: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """At first the nearest, then the next as long as the last ones break; all others once one of the sample is broken.

    The first round begins with the sample, too. From the second call on, ``ranked`` begins with the classes in the
    order of the round.
    """
    share, classes, _ = race.rounds[number]
    begun = _has(state, _ROUND << number)
    others = state.robust & ~begun
    if begun.any():
        state.ranked = _by_score(state.ranked, state.scores[:, : min(classes, state.ranked.shape[1])])
    if _broke(state, _DRAWN):
        group = others
    elif begun.any() and not _broke(state, _LAST):
        group = torch.zeros_like(others)
    else:
        group = nearest(state, _part(share, others), others)
    _mark(state, _LAST, group & ~nearest(state, int(group.sum()) - _part(FARTHEST, group), group))
    if number == 0 and not begun.any():
        group = group | _drawn(race, state, keys, others & ~group)
    return _mark(state, _ROUND << number, group, begun)


def _drawn(race: Race, state: EvaluationState, keys: Tensor, among: Tensor) -> Tensor:
    """The sample, which is marked."""
    rows = among.nonzero().squeeze(1)
    order = uniform(fold(keys[rows], "race/sample"), (1,)).squeeze(1).argsort(stable=True)
    count = min(max(_part(race.drawn, state.robust), LEAST), MOST) if race.drawn else 0
    return _mark(state, _DRAWN, torch.zeros_like(among).index_fill(0, rows[order[:count]], True))


def pick_nearest(race: Race, state: EvaluationState, keys: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """The nearest robust examples."""
    return _mark(state, _NEAR, nearest(state, _part(race.near, state.robust), state.robust))


def pick_sample(state: EvaluationState, keys: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Those of the sample that were not among the nearest; none once one of it is broken."""
    if _broke(state, _DRAWN):
        return torch.zeros_like(state.robust)
    return state.robust & _has(state, _DRAWN) & ~_has(state, _NEAR)


def pick_more(race: Race, state: EvaluationState, keys: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """The nearest if Square broke one, then the next, twice as many each time, while it breaks any; or all others.

    After the last call the marks are cleared, for another race.
    """
    begun = _has(state, _MORE)
    others = state.robust & ~begun
    count = 0
    if _broke(state, _DRAWN):
        count = int(others.sum())
    elif begun.any() and _broke(state, _LAST):
        count = 2 * int(_has(state, _LAST).sum())
    elif not begun.any() and _broke(state, _NEAR):
        count = _part(race.near, others)
    group = _mark(state, _MORE, _mark(state, _LAST, nearest(state, count, others)), begun)
    if not group.any():
        state.marks = torch.zeros_like(state.marks)
    return group


def _has(state: EvaluationState, mark: int) -> Bool[Tensor, " n"]:
    return state.marks & mark > 0


def _broke(state: EvaluationState, mark: int) -> bool:
    """Whether an example with this mark is broken."""
    return bool((state.broken & _has(state, mark)).any())


def _mark(state: EvaluationState, mark: int, rows: Tensor, also: Tensor | None = None) -> Tensor:
    """These rows, which have the mark from now on; others lose it, except for those in ``also``."""
    marked = rows if also is None else rows | also
    state.marks = torch.where(marked, state.marks | mark, state.marks & ~mark)
    return rows


def _part(share: float, rows: Tensor) -> int:
    """This fraction of the rows, rounded up."""
    return math.ceil(share * int(rows.sum()))


def nearest(state: EvaluationState, count: int, among: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """As many of these examples, or all of them: those with the smallest margins."""
    rows = among.nonzero().squeeze(1)
    chosen = rows[state.margin[rows].argsort(stable=True)[:count]]
    return torch.zeros_like(among).index_fill(0, chosen, True)


def _by_score(classes: Int[Tensor, "n classes"], scores: Float[Tensor, "n scores"]) -> Int[Tensor, "n classes"]:
    """The first classes ordered by their scores, smallest first; the rest as they were."""
    width = scores.shape[1]
    order = scores.nan_to_num(nan=torch.inf).argsort(dim=1, stable=True)
    return torch.cat([classes[:, :width].gather(1, order), classes[:, width:]], 1)


# --- the runs of a stage ---


class APGDRuns(IterativeAttack[Any], ABC):
    """Runs of an APGD whose number, target classes and budgets the race decides.

    Attributes:
        steps: of each run.
    """

    steps: int

    _apgd: Any = PrivateAttr(None)

    @abstractmethod
    def apgd(self, threat: Threat) -> APGD | SparseAPGD:
        """The APGD of these runs for one threat."""

    def for_threat(self, threat: Threat, classes: int) -> IterativeAttack[Any]:
        """The runs for one threat, with the APGD for it."""
        copied = self._copy_for(threat, classes)
        copied._apgd = self.apgd(threat).for_threat(threat, classes)
        return copied

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> Any:
        """Start uniformly in the ball."""
        return self._apgd.init(batch, number)

    def objective(self, state: Any, batch: Batch, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """The loss of the APGD."""
        values: Tensor = self._apgd.objective(state, batch, logits)
        return values

    def step(self, state: Any, batch: Batch, answer: Answer) -> None:
        """A step of the APGD."""
        self._apgd.step(state, batch, answer)


class FirstRun(APGDRuns):
    """One run on the cross-entropy, which ranks the wrong classes by the logits at the image of smallest margin."""

    ranks: ClassVar[bool] = True

    def apgd(self, threat: Threat) -> APGD | SparseAPGD:
        """APGD, in ℓ1 without wide balls, whose margins would not count."""
        return SparseAPGD(steps=self.steps, wide=False) if isinstance(threat, L1) else APGD(steps=self.steps)


class RaceRuns(APGDRuns):
    """Runs towards an example's best few classes, and perhaps one on the cross-entropy; hopeless ones retire.

    Attributes:
        width: how many classes.
        ce: whether there is a run on the cross-entropy.
        patience: as in :class:`Race`.
    """

    width: int
    ce: bool
    patience: float

    def apgd(self, threat: Threat) -> APGD | SparseAPGD:
        """On the directed DLR in ℓ∞ and ℓ2, where hopeless runs retire; in ℓ1 on the directed margin."""
        if isinstance(threat, L1):
            return SparseAPGD(steps=self.steps, loss="margin", wide=False)
        return RetiringAPGD(steps=self.steps, loss="dlr", patience=self.patience)

    @property
    def n_targets(self) -> int:
        """How many of the best classes."""
        return min(self.width, self._classes - 1)

    @property
    def runs(self) -> int:
        """One for each class, and the one on the cross-entropy."""
        return self.n_targets + self.ce

    def target_class(
        self, number: int, ranked: Int[Tensor, "n classes"], scores: Float[Tensor, "n runs"], keys: Int[Tensor, " n"]
    ) -> Int[Tensor, " n"] | None:
        """The best classes in turn, then none: that run ascends the cross-entropy."""
        return ranked[:, number] if number < self.n_targets else None

    def objective(self, state: Any, batch: Batch, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """The APGD's directed loss if the row has a target class, else the cross-entropy."""
        values: Tensor = self._apgd.objective(state, batch, logits)
        if not self.ce or batch.target_class is None or batch.targets is not None:
            return values
        return torch.where(batch.target_class >= 0, values, batch.ascend("ce", logits))

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
