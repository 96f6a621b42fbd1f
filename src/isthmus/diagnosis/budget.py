"""Limits on the passes and the time of a diagnosis, and what it has spent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from isthmus.attacks import APGD, Square
from isthmus.attacks.engine.counted_model import BudgetExhausted, CountedModel
from isthmus.attacks.suites import Suite


@dataclass(frozen=True)
class Budget:
    """Strength of the diagnostic tests and follow-up attacks.

    Attributes:
        ensemble: strong suite that the baseline attack is compared with.
        sample: number of examples for the expensive tests.
        restarts: additional random starts.
        steps: steps of the long run.
        queries: queries of random search in the follow-up attack.
        draws: draws of a random model to average over at each step.
        passes: hard limit on the example-passes per image, forward and backward, of all tests and follow-up attacks
            together. What would exceed it is cut short; the verdict names what was not tried.
        seconds: time limit, which works the same way. What is tried then depends on the machine, so two runs may
            differ. None for no limit.
    """

    ensemble: str
    sample: int
    restarts: int
    steps: int
    queries: int
    draws: int
    passes: int
    seconds: float | None = None

    def strong_suite(self, num_classes: int, random: bool = False, differentiable: bool = True) -> Suite:
        """The strong suite for one model: averaged APGD if it is random, random search if it has no gradient."""
        if not differentiable:
            return [Square(queries=self.queries)]
        if not random:
            return self.ensemble
        targets = min(num_classes - 1, 3)
        return [
            APGD(steps=50, loss="ce", eot=self.draws),
            APGD(steps=50, loss="dlr" if targets > 1 else "margin", targets=targets, eot=self.draws),
        ]

    def __str__(self) -> str:
        return f"{self.passes} passes per image" if self.seconds is None else f"{self.seconds} seconds"


QUICK = Budget(ensemble="fast", sample=100, restarts=5, steps=200, queries=2000, draws=8, passes=10_000)
FULL = Budget(ensemble="standard", sample=300, restarts=20, steps=500, queries=5000, draws=20, passes=50_000)


class Spending:
    """Example-passes and time spent against a limit.

    Args:
        budget: passes per image, and seconds from now on.
        n: number of images.
        progress: called with the passes spent so far.

    Attributes:
        limit: passes that are never exceeded.
        deadline: end of the time, by ``time.monotonic()``; None for no limit.
        forward_passes, backward_passes: example-passes so far.
        exhausted: whether the limit has cut something short; nothing more is tried then.
    """

    def __init__(self, budget: Budget, n: int, progress: Callable[[int], None]) -> None:
        self.limit = budget.passes * n
        self.deadline = None if budget.seconds is None else time.monotonic() + budget.seconds
        self.forward_passes = self.backward_passes = 0
        self.exhausted = False
        self._progress = progress

    @property
    def total(self) -> int:
        """Forward and backward passes so far."""
        return self.forward_passes + self.backward_passes

    @property
    def remaining(self) -> int:
        """Passes that may still be spent."""
        return self.limit - self.total

    def add(self, forward_passes: int, backward_passes: int = 0) -> None:
        """Count passes that were made."""
        self.forward_passes += forward_passes
        self.backward_passes += backward_passes

    def reserve(self, forward_passes: int, backward_passes: int = 0) -> None:
        """Count passes that are about to be made.

        Raises:
            BudgetExhausted: the limit does not cover them.
        """
        if forward_passes + backward_passes > self.remaining:
            raise BudgetExhausted("passes")
        self.add(forward_passes, backward_passes)

    def restrict(self, counted_model: CountedModel) -> CountedModel:
        """Limit a model to the remaining passes and time."""
        counted_model.limit, counted_model.deadline = self.remaining, self.deadline
        return counted_model

    def report(self, running: int = 0) -> None:
        """Report the passes so far, plus those of a running attack."""
        self._progress(self.total + running)
