"""MultiTargeted: PGD towards every wrong class, from every start (Gowal et al. 2019, arXiv:1910.09338).

The authors attack in ℓ∞. In ℓ1, where PGD's steps circle around the optimum at a distance of their size, a run's first
step goes to the optimum of the linearised margin instead.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Int
from pydantic import Field
from torch import Tensor

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.iterative import AttackState, Directed, IterativeAttack, counters
from isthmus.attacks.threats import L1, Threat
from isthmus.core.config import Component

FIRST_STEP = 0.25  # of ε; halved after half and after three quarters of the steps


class Config(Component):
    """Options of MultiTargeted; Korshunova et al. 2021 take 10 restarts of 200 steps.

    Attributes:
        steps: gradient steps of a run.
        restarts: for each target, as in the authors' code.
        targets: wrong classes to try, those with the largest clean logits first; None for all of them.
        eot: draws of a random model to average over at each step.
    """

    argument: ClassVar[str | None] = "steps"
    name: Literal["multitargeted"] = "multitargeted"
    steps: Annotated[int, Field(gt=0)] = 200
    restarts: Annotated[int, Field(gt=0)] = 10
    targets: Annotated[int, Field(gt=0)] | None = None
    eot: Annotated[int, Field(gt=0)] = 1


def search(config: Config, threat: Threat, classes: int) -> IterativeAttack[AttackState]:
    """Ascend z_t − z_y for each wrong class t; an example is broken if any class wins, whichever was meant."""
    return MultiTargeted(config, threat, classes)


class MultiTargeted(Directed[AttackState]):
    """Every target once, then all of them again from new starts."""

    loss = "margin"  # directed, z_t − z_y

    def __init__(self, config: Config, threat: Threat, classes: int) -> None:
        self.config, self.threat, self.eot = config, threat, config.eot
        self.targets = min(config.targets or classes - 1, classes - 1)
        self.runs = self.targets * config.restarts

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> AttackState:
        """Uniformly in the ball."""
        x = self.threat.random_start(batch.images, batch.keys)
        return AttackState(x, *counters(len(batch), self.config.steps, x))

    def step(self, runs: AttackState, batch: Batch, answer: Answer) -> None:
        """A step of ε/4, ε/8 or ε/16 along the steepest ascent, projected; in ℓ1 after a first one to the optimum."""
        share = runs.step / runs.budget
        halvings = (share >= 0.5).long() + (share >= 0.75)
        size = self.threat.eps * FIRST_STEP * torch.pow(0.5, halvings)
        x = self.threat.project(self.threat.step(runs.x, answer.gradient, size), batch.images)
        first = runs.step == 0
        if isinstance(self.threat, L1) and first.any():
            x[first] = self.threat.linear_optimum(answer.gradient[first], batch.images[first])
        runs.x = x
        runs.step += 1
