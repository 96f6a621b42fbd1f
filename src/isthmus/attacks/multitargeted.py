"""MultiTargeted: PGD towards every wrong class, from every start (Gowal et al. 2019, arXiv:1910.09338).

The authors attack in ℓ∞. In ℓ1, where PGD's steps circle around the optimum at a distance of their size, a run's first
step goes to the optimum of the linearised margin instead.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from isthmus.attacks.attack import AttackState, IterativeAttack, counters
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.threats import L1

FIRST_STEP = 0.25  # of ε; halved after half and after three quarters of the steps


class MultiTargeted(IterativeAttack[AttackState]):
    """Ascend z_t − z_y for each wrong class t, from each start; an example is broken if any wrong class wins.

    Korshunova et al. 2021 take 10 restarts of 200 steps.

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

    @property
    def n_targets(self) -> int:
        """The option ``targets``, at most all wrong classes."""
        return min(self.targets or self._classes - 1, self._classes - 1)

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> AttackState:
        """Uniformly in the ball."""
        x = self.threat.random_start(batch.images, batch.keys)
        return AttackState(x, *counters(len(batch), self.steps, x))

    def objective(self, state: AttackState, batch: Batch, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """z_t − z_y."""
        return batch.ascend("margin", logits)

    def step(self, state: AttackState, batch: Batch, answer: Answer) -> None:
        """A step of ε/4, ε/8 or ε/16 along the steepest ascent, projected; in ℓ1 after a first one to the optimum."""
        share = state.step / state.budget
        halvings = (share >= 0.5).long() + (share >= 0.75)
        size = self.threat.eps * FIRST_STEP * torch.pow(0.5, halvings)
        x = self.threat.project(self.threat.step(state.x, answer.gradient, size), batch.images)
        first = state.step == 0
        if isinstance(self.threat, L1) and first.any():
            x[first] = self.threat.linear_optimum(answer.gradient[first], batch.images[first])
        state.x = x
        state.step += 1
