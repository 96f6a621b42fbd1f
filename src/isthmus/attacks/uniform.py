"""Uniform: random images from the ball. Would random noise do?

The weakest attack there is, and a check of the others: gradients that find less than it does are obfuscated
(Athalye et al. 2018, arXiv:1802.00420, "random sampling finds adversarial examples").
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.iterative import AttackState, IterativeAttack, counters
from isthmus.attacks.threats import Threat
from isthmus.core.config import Component
from isthmus.core.randomness import fold


class Config(Component):
    """Options of uniform sampling. ``uniform:1000`` is short for 1000 samples.

    Attributes:
        samples: images drawn for each example, one forward pass each; fewer where one of them is misclassified.
    """

    argument: ClassVar[str | None] = "samples"
    name: Literal["uniform"] = "uniform"
    samples: Annotated[int, Field(ge=2)] = 100


def search(config: Config, threat: Threat, classes: int) -> IterativeAttack[AttackState]:
    """Images drawn independently and uniformly from the ball, and clipped to the box."""
    return Uniform(config, threat)


class Uniform(IterativeAttack[AttackState]):
    """Samples without memory: each look sees a new one."""

    gradient: ClassVar[bool] = False

    def __init__(self, config: Config, threat: Threat) -> None:
        self.config, self.threat = config, threat

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> AttackState:
        """At the first sample; the last one is judged rather than looked at."""
        step, budget = counters(len(batch), self.config.samples - 1, batch.images)
        return AttackState(self._sample(batch, step), step, budget)

    def step(self, runs: AttackState, batch: Batch, answer: Answer) -> None:
        """To the next sample."""
        runs.step += 1
        runs.x = self._sample(batch, runs.step)

    def _sample(self, batch: Batch, number: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        return self.threat.random_start(batch.images, fold(batch.keys, "uniform/sample", number))
