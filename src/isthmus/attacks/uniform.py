"""Uniform: random images from the ball.

The weakest attack, and a check of the others: gradients that find less than it does are obfuscated (Athalye et al.
2018, arXiv:1802.00420, "random sampling finds adversarial examples").
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from isthmus.attacks.attack import AttackState, IterativeAttack, counters
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.core.randomness import fold


class Uniform(IterativeAttack[AttackState]):
    """Images drawn independently and uniformly from the ball, and clipped to the box.

    ``uniform:1000`` is short for 1000 samples.

    Attributes:
        samples: images drawn for each example, one forward pass each; fewer if one of them is misclassified.
    """

    argument: ClassVar[str | None] = "samples"
    gradient: ClassVar[bool] = False
    name: Literal["uniform"] = "uniform"
    samples: Annotated[int, Field(ge=2)] = 100

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> AttackState:
        """Start at the first sample; the last one is verified rather than queried."""
        step, budget = counters(len(batch), self.samples - 1, batch.images)
        return AttackState(self._sample(batch, step), step, budget)

    def step(self, state: AttackState, batch: Batch, answer: Answer) -> None:
        """Move to the next sample."""
        state.step += 1
        state.x = self._sample(batch, state.step)

    def _sample(self, batch: Batch, number: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        return self.threat.random_start(batch.images, fold(batch.keys, "uniform/sample", number))
