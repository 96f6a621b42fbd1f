"""Schedules of the learning rate and of the trade-off ρ."""

from __future__ import annotations

import math
from bisect import bisect_right

from isthmus.core.config import Component
from isthmus.core.errors import ConfigError
from isthmus.core.training_options import LearningRate, RhoSchedule
from isthmus.objectives.objective import TradeOffObjective


def learning_rate_factor(schedule: LearningRate, epoch: int) -> float:
    """Factor on the base learning rate in an epoch (counted from 0): a staircase."""
    drops = epoch // schedule.every if schedule.every else bisect_right(schedule.milestones, epoch)
    return schedule.factor**drops


def warm_up_factor(schedule: LearningRate, epochs: float) -> float:
    """Additional factor on the learning rate after ``epochs`` (possibly fractional): linear from 0 to 1."""
    return min(1.0, epochs / schedule.warmup_epochs) if schedule.warmup_epochs else 1.0


class RhoController:
    """ρ at every step, with the accuracy gate of Fischer & Alemi 2020.

    The only state is ``released_at``, the step at which the gate opened; checkpoints store it.

    Args:
        schedule: of the recipe, or None for a constant ρ.
        objective: its ρ is the target.
        steps_per_epoch: for schedules given in epochs.
        total: steps of the whole run, for schedules limited to a fraction of it.

    Raises:
        ConfigError: a schedule for an objective without ρ.
    """

    def __init__(
        self, schedule: RhoSchedule | None, objective: Component, steps_per_epoch: int, total: float = math.inf
    ) -> None:
        if schedule is not None and not isinstance(objective, TradeOffObjective):
            raise ConfigError(
                f"training.rho_schedule is set, but the objective {objective.name!r} has no rho; remove the schedule."
            )
        self.schedule = schedule
        self.objective = objective
        self.steps_per_epoch = steps_per_epoch
        self.total = total
        self.released_at: int | None = None

    def at(self, step: int) -> float | None:
        """ρ at a step; None for objectives without one."""
        if not isinstance(self.objective, TradeOffObjective):
            return None
        target, schedule = self.objective.rho, self.schedule
        if schedule is None:
            return target
        if schedule.hold is None:
            return self._between(schedule.start, target, step / max(self._first_stage, 1e-9))
        if self.released_at is None:
            return self._between(schedule.start, schedule.hold, step / max(self._first_stage, 1e-9))
        length = schedule.release * self.steps_per_epoch
        return self._between(schedule.hold, target, (step - self.released_at) / max(length, 1e-9))

    def end_epoch(self, next_step: int, accuracy: float) -> None:
        """Open the gate if the first stage is over and the epoch's mean training accuracy exceeds it."""
        schedule = self.schedule
        if schedule is None or schedule.hold is None or self.released_at is not None:
            return
        if next_step >= self._first_stage and accuracy > schedule.gate:
            self.released_at = next_step

    def check_longer_than(self, total: float) -> None:
        """Check that the schedule of a shorter run, of ``total`` steps, begins as this one.

        Raises:
            ConfigError: its stages depend on the length of the run.
        """
        if self.schedule is None or self.schedule.share is None:
            return
        shorter = RhoController(self.schedule, self.objective, self.steps_per_epoch, total)
        if shorter._first_stage != self._first_stage:
            raise ConfigError(
                f"This run cannot be lengthened: training.rho_schedule.share={self.schedule.share:.3g} limits the "
                f"first stage to {shorter._first_stage:.0f} steps in a run of {total:.0f}, and to "
                f"{self._first_stage:.0f} in one of {self.total:.0f}. Train the longer run in another "
                "folder, or without share."
            )

    def finished(self, step: int) -> bool:
        """Whether ρ has reached its target."""
        return not isinstance(self.objective, TradeOffObjective) or self.at(step) == self.objective.rho

    @property
    def _first_stage(self) -> float:
        assert self.schedule is not None
        length = self.schedule.steps or self.schedule.epochs * self.steps_per_epoch
        return length if self.schedule.share is None else min(length, self.schedule.share * self.total)

    def _between(self, start: float, end: float, progress: float) -> float:
        if progress >= 1.0:
            return end
        assert self.schedule is not None
        assert isinstance(self.objective, TradeOffObjective)
        if self.schedule.space == "weight":
            first, last = self.objective.weight(start), self.objective.weight(end)
            return self.objective.rho_at_weight(first + progress * (last - first))
        if math.isinf(start) or math.isinf(end):  # from or to infinity, ρ jumps at the end
            return start
        return start + progress * (end - start)
