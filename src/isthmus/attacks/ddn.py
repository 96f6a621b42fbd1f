"""DDN: the smallest ℓ2 perturbation, its direction and its norm adapted apart (Rony et al. 2019, arXiv:1811.09600)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from isthmus.attacks.attack import AttackState, IterativeAttack, counters
from isthmus.attacks.engine.batch import Batch, per_image
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.threats import L2
from isthmus.core.randomness import fold, normal

ALPHA, ALPHA_LEFT = 1.0, 0.01  # step size, and what a cosine leaves of it at the end

_EUCLIDEAN = L2(1.0)


@dataclass
class DDNState(AttackState):
    """A sphere about each image.

    Attributes:
        radius: of the sphere.
        widest: distance to the farthest corner of the box; no sphere is larger.
    """

    radius: Float[Tensor, " n"]
    widest: Float[Tensor, " n"]


class DDN(IterativeAttack[DDNState]):
    """Step along the gradient of the cross-entropy and rescale to a norm that follows the boundary.

    In a ball the attack ends at the first adversarial image inside it. The paper rounds images to 256 levels; here they
    stay real numbers, as in every other attack. Each row has its own norm.

    ``ddn:1000`` is short for 1000 steps.

    Attributes:
        steps: gradient steps.
        gamma: share by which the norm shrinks after a success and grows after a failure.
        initial_norm: of the first perturbation, in units of images in [0, 1].
        eot: draws of a random model to average over at each step.
    """

    norms: ClassVar[tuple[str, ...]] = ("l2",)
    inside: ClassVar[bool] = False
    argument: ClassVar[str | None] = "steps"
    name: Literal["ddn"] = "ddn"
    steps: Annotated[int, Field(gt=0)] = 100
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.05
    initial_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    eot: Annotated[int, Field(gt=0)] = 1

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> DDNState:
        """At the image."""
        x = batch.images.clone()
        step, budget = counters(len(x), self.steps, x)
        widest = _EUCLIDEAN.norm(torch.maximum(x, 1 - x))
        return DDNState(x, step, budget, torch.full_like(widest, self.initial_norm), widest)

    def step(self, state: DDNState, batch: Batch, answer: Answer) -> None:
        """Turn the perturbation towards the gradient, then rescale it."""
        cosine = (1 + torch.cos(math.pi * state.step / state.budget)) / 2
        alpha = ALPHA_LEFT + (ALPHA - ALPHA_LEFT) * cosine
        delta = _EUCLIDEAN.step(state.x, self._direction(state, batch, answer.gradient), alpha) - batch.images
        factor = torch.where(batch.reached(answer.logits), 1 - self.gamma, 1 + self.gamma)
        state.radius = torch.minimum(state.radius * factor, state.widest)
        scale = state.radius / _EUCLIDEAN.norm(delta).clamp(min=1e-12)
        state.x = (batch.images + per_image(scale, delta) * delta).clamp_(0, 1)
        state.step += 1

    def _direction(self, state: DDNState, batch: Batch, gradient: Tensor) -> Tensor:
        """The gradient; where it is zero throughout, a direction drawn at random."""
        lost = (gradient == 0).flatten(1).all(1)
        if not lost.any():
            return gradient
        drawn = normal(fold(batch.keys, "ddn/direction", state.step), tuple(gradient.shape[1:])).to(gradient)
        return torch.where(per_image(lost, gradient), drawn, gradient)
