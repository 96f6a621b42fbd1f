"""DDN: the smallest ℓ2 perturbation, its direction and its norm adapted apart (Rony et al. 2019, arXiv:1811.09600)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.iterative import AttackState, IterativeAttack, counters
from isthmus.attacks.engine.rows import per_image
from isthmus.attacks.threats import L2, Threat
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError
from isthmus.core.randomness import fold, normal

ALPHA, ALPHA_LEFT = 1.0, 0.01  # step size, and what a cosine leaves of it at the end


class Config(Component):
    """Options of DDN. ``ddn:1000`` is short for 1000 steps.

    Attributes:
        steps: gradient steps.
        gamma: share by which the norm shrinks after a success and grows after a failure.
        initial_norm: of the first perturbation, in units of images in [0, 1].
        eot: draws of a random model to average over at each step.
    """

    argument: ClassVar[str | None] = "steps"
    name: Literal["ddn"] = "ddn"
    steps: Annotated[int, Field(gt=0)] = 100
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.05
    initial_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    eot: Annotated[int, Field(gt=0)] = 1


def search(config: Config, threat: Threat, classes: int) -> IterativeAttack[Sphere]:
    """Step along the gradient of the cross-entropy and rescale to a norm that follows the boundary.

    In a ball the search ends at the first adversarial image inside it. The paper rounds images to 256 levels; here
    they stay real numbers, as with every other attack.

    Raises:
        ConfigError: the threat is not ℓ2.
    """
    if not isinstance(threat, L2):
        raise ConfigError(f"The attack 'ddn' minimises the ℓ2 norm and knows no {threat.name}; use l2, or fab or fmn.")
    return DecoupledDirection(config)


@dataclass
class Sphere(AttackState):
    """A sphere about each image.

    Attributes:
        radius: of the sphere.
        widest: distance to the farthest corner of the box; no sphere is larger.
    """

    radius: Float[Tensor, " n"]
    widest: Float[Tensor, " n"]


class DecoupledDirection(IterativeAttack[Sphere]):
    """DDN, each row with its own norm."""

    inside = False

    def __init__(self, config: Config) -> None:
        self.config, self.eot = config, config.eot
        self.unit = L2(1.0)

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> Sphere:
        """At the image."""
        x = batch.images.clone()
        step, budget = counters(len(x), self.config.steps, x)
        widest = self.unit.norm(torch.maximum(x, 1 - x))
        return Sphere(x, step, budget, torch.full_like(widest, self.config.initial_norm), widest)

    def objective(self, runs: Sphere, batch: Batch, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """The cross-entropy against the label, or its negative against the target."""
        return batch.ascend("ce", logits)

    def step(self, runs: Sphere, batch: Batch, answer: Answer) -> None:
        """Turn the perturbation towards the gradient, then rescale it."""
        cosine = (1 + torch.cos(math.pi * runs.step / runs.budget)) / 2
        alpha = ALPHA_LEFT + (ALPHA - ALPHA_LEFT) * cosine
        delta = self.unit.step(runs.x, self._direction(runs, batch, answer.gradient), alpha) - batch.images
        factor = torch.where(batch.reached(answer.logits), 1 - self.config.gamma, 1 + self.config.gamma)
        runs.radius = torch.minimum(runs.radius * factor, runs.widest)
        scale = runs.radius / self.unit.norm(delta).clamp(min=1e-12)
        runs.x = (batch.images + per_image(scale, delta) * delta).clamp_(0, 1)
        runs.step += 1

    def _direction(self, runs: Sphere, batch: Batch, gradient: Tensor) -> Tensor:
        """The gradient; where it is zero throughout, a direction drawn at random."""
        lost = (gradient == 0).flatten(1).all(1)
        if not lost.any():
            return gradient
        drawn = normal(fold(batch.keys, "ddn/direction", runs.step), tuple(gradient.shape[1:])).to(gradient)
        return torch.where(per_image(lost, gradient), drawn, gradient)
