"""MI-FGSM: sign steps along a decaying sum of gradients (Dong et al. 2018, arXiv:1710.06081, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.iterative import AttackState, IterativeAttack, counters
from isthmus.attacks.threats import Threat
from isthmus.core.config import Component


class Config(Component):
    """Options. ``momentum:20`` is short for 20 steps.

    Attributes:
        steps: gradient steps, of ε / steps each.
        decay: share of the sum that is left at the next step.
    """

    argument: ClassVar[str | None] = "steps"
    name: Literal["momentum"] = "momentum"
    steps: Annotated[int, Field(gt=0)] = 10
    decay: Annotated[float, Field(ge=0)] = 1.0


@dataclass
class Rolling(AttackState):
    """Where runs are, and the sum of gradients so far."""

    velocity: Float[Tensor, "n c h w"]


def search(config: Config, threat: Threat, classes: int) -> IterativeAttack[Rolling]:
    """Steps along the sum of gradients, each divided by its mean size."""
    return Momentum(config, threat)


class Momentum(IterativeAttack[Rolling]):
    """One run per example, from the image itself."""

    def __init__(self, config: Config, threat: Threat) -> None:
        self.config, self.threat = config, threat

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> Rolling:
        """At the image; ``number`` is for attacks with several runs."""
        x = batch.images.clone()
        return Rolling(x, *counters(len(x), self.config.steps, x), velocity=torch.zeros_like(x))

    def objective(self, runs: Rolling, batch: Batch, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """The cross-entropy, or what leads to the target in a targeted evaluation."""
        return batch.ascend("ce", logits)

    def step(self, runs: Rolling, batch: Batch, answer: Answer) -> None:
        """A step of every row, by what that row saw and did before; counts the step."""
        size = answer.gradient.abs().mean((1, 2, 3), keepdim=True)
        runs.velocity = self.config.decay * runs.velocity + answer.gradient / size.clamp(min=1e-12)
        stepped = self.threat.step(runs.x, runs.velocity, self.threat.eps / self.config.steps)
        runs.x = self.threat.project(stepped, batch.images)
        runs.step += 1
