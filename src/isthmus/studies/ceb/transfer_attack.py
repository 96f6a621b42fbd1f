"""PGD on one model whose last iterates are tried on another: what papers call a transfer attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from isthmus.attacks import pgd
from isthmus.attacks.attack import Attack
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.threats import Threat
from isthmus.core.config import Component
from isthmus.core.preserve_state import preserve_state


class Steps(Component):
    """PGD on another model, all its steps.

    Attributes:
        source: what identifies the other model.
    """

    name: Literal["surrogate"] = "surrogate"
    steps: int
    source: str


@dataclass(frozen=True)
class Surrogate:
    """PGD's last iterate on ``source``, whether or not it broke that."""

    source: nn.Module

    def perturb(self, config: Steps, oracle: CountedModel, batch: Batch, threat: Threat) -> Float[Tensor, "n c h w"]:
        """``steps`` steps of 4/3·ε/steps on the source's cross-entropy, without a query of the attacked model."""
        source = CountedModel(self.source)
        size = pgd.Config(steps=config.steps, relative_step_size=4 / 3 / config.steps).size(threat.eps)
        x = threat.random_start(batch.images, batch.keys)
        with preserve_state(self.source, x.device, seed=0):
            for _ in range(config.steps):
                answer = source.query(x, batch.keys, lambda logits: batch.ascend("ce", logits))
                x = threat.project(threat.step(x, answer.gradient, size), batch.images)
        return x


def surrogate(source: nn.Module, steps: int, name: str) -> Attack:
    """The attack by PGD on another model; ``name`` identifies that."""
    return Attack("surrogate", Steps(steps=steps, source=name), perturb=Surrogate(source).perturb)
