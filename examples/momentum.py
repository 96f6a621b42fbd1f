"""MI-FGSM: sign steps along a decaying sum of gradients (Dong et al. 2018, arXiv:1710.06081, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from isthmus.attacks.attack import AttackState, IterativeAttack, counters
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer


@dataclass
class MomentumState(AttackState):
    """State of runs, and the sum of their gradients so far."""

    velocity: Float[Tensor, "n c h w"]


class Momentum(IterativeAttack[MomentumState]):
    """Steps along the sum of gradients, each divided by its mean size. ``momentum:20`` is short for 20 steps.

    Attributes:
        steps: gradient steps, of ε / steps each.
        decay: factor of the sum at each step.
    """

    argument: ClassVar[str | None] = "steps"
    name: Literal["momentum"] = "momentum"
    steps: Annotated[int, Field(gt=0)] = 10
    decay: Annotated[float, Field(ge=0)] = 1.0

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> MomentumState:
        """Start at the image; ``number`` is for attacks with several runs per example."""
        x = batch.images.clone()
        return MomentumState(x, *counters(len(x), self.steps, x), velocity=torch.zeros_like(x))

    def objective(self, state: MomentumState, batch: Batch, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """The cross-entropy, or what leads to the target in a targeted evaluation."""
        return batch.ascend("ce", logits)

    def step(self, state: MomentumState, batch: Batch, answer: Answer) -> None:
        """Move every row by its own gradient and velocity, and count the step."""
        size = answer.gradient.abs().mean((1, 2, 3), keepdim=True)
        state.velocity = self.decay * state.velocity + answer.gradient / size.clamp(min=1e-12)
        stepped = self.threat.step(state.x, state.velocity, self.threat.eps / self.steps)
        state.x = self.threat.project(stepped, batch.images)
        state.step += 1
