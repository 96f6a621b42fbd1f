"""FMN: the smallest perturbation by gradient steps in a ball that follows the boundary (Pintor et al. 2021,
arXiv:2102.12827, algorithm 1), in ℓ∞, ℓ2 and ℓ1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from isthmus.attacks import balls
from isthmus.attacks.attack import AttackState, IterativeAttack, counters
from isthmus.attacks.engine.batch import Batch, per_image
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.threats import L1, L2, Linf, Threat
from isthmus.core.randomness import fold

ALPHA_SHARE = 0.01  # of alpha at the end
GAMMA_LEFT = 1e-3  # gamma at the end

_DUAL: dict[str, Threat] = {"linf": L1(1.0), "l2": L2(1.0), "l1": Linf(1.0)}
_NEAREST = {"linf": balls.onto_linf, "l2": balls.onto_l2, "l1": balls.onto_l1}
_EUCLIDEAN = L2(1.0)


@dataclass
class FMNState(AttackState):
    """A ball about each image.

    Attributes:
        radius: of the ball, in the threat's norm.
        widest: distance to the farthest corner of the box; no ball need be larger.
        best: smallest perturbation so far that succeeded, ∞ before one did.
        scattered: whether the run begins at a random point.
    """

    radius: Float[Tensor, " n"]
    widest: Float[Tensor, " n"]
    best: Float[Tensor, " n"]
    scattered: Bool[Tensor, " n"]


class FMN(IterativeAttack[FMNState]):
    """Step along the gradient of max_{j≠y} z_j − z_y and project onto a ball: smaller after success, else larger.

    In a ball (``threat``) the attack ends at the first adversarial image inside it; otherwise (see
    :func:`isthmus.attacks.minimal_norm.minimal_norms`) it continues to the smallest perturbation it can find.

    ``fmn:1000`` is short for 1000 steps.

    Attributes:
        steps: gradient steps of a run.
        alpha: first step size, in ℓ2 and units of images in [0, 1] whatever the norm; falls to a hundredth on a cosine.
        gamma: share by which the ball first shrinks or grows in a step; falls to 0.001 likewise.
        restarts: runs per example. The first is the paper's. The next are directed at the wrong classes from the second
            likeliest on, in turn; all after these begin at a random point about as far away as the boundary.
        eot: draws of a random model to average over at each step.
    """

    inside: ClassVar[bool] = False
    argument: ClassVar[str | None] = "steps"
    name: Literal["fmn"] = "fmn"
    steps: Annotated[int, Field(gt=0)] = 100
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.05
    restarts: Annotated[int, Field(gt=0)] = 1
    eot: Annotated[int, Field(gt=0)] = 1

    @property
    def _directed(self) -> int:
        return self._classes - 2  # runs directed at a class; the first finds the likeliest wrong one by itself

    @property
    def directed(self) -> bool:
        """Whether there is a second run, the first that has a class."""
        return self.restarts > 1

    def target_class(
        self, number: int, ranked: Int[Tensor, "n classes"], scores: Float[Tensor, "n runs"], keys: Int[Tensor, " n"]
    ) -> Int[Tensor, " n"] | None:
        """No class first, then the wrong classes in turn, but for the likeliest."""
        return ranked[:, number] if 1 <= number <= self._directed else None

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> FMNState:
        """Start at the image: one query there gives the distance of the boundary."""
        x = batch.images.clone()
        step, budget = counters(len(x), self.steps, x)
        endless = x.new_full((len(x),), torch.inf)
        widest = self.threat.norm(torch.maximum(x, 1 - x))
        scattered = number > (self._directed if batch.targets is None else 0)
        return FMNState(x, step, budget, endless, widest, endless.clone(), scattered)

    def objective(self, state: FMNState, batch: Batch, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """max_{j≠y} z_j − z_y; z_t − z_y where the run is directed, z_t − max_{j≠t} z_j for a target."""
        return batch.difference(logits)

    def step(self, state: FMNState, batch: Batch, answer: Answer) -> None:
        """Resize the ball, then step and project."""
        cosine = (1 + torch.cos(math.pi * state.step / state.budget)) / 2
        gamma = GAMMA_LEFT + (self.gamma - GAMMA_LEFT) * cosine
        alpha = self.alpha * (ALPHA_SHARE + (1 - ALPHA_SHARE) * cosine)
        self._resize(state, batch, answer, gamma)
        wanted = _EUCLIDEAN.step(state.x, answer.gradient, alpha) - batch.images
        lost = state.scattered & (state.step == 0)
        if lost.any():
            wanted = torch.where(per_image(lost, wanted), self._scatter(state, batch, wanted), wanted)
        state.x = within(self.threat.name, batch.images, wanted, state.radius)
        state.step += 1

    def _resize(self, state: FMNState, batch: Batch, answer: Answer, gamma: Tensor) -> None:
        """Shrink after success and grow after failure; before any success reach beyond the linearised boundary."""
        reached = batch.reached(answer.logits)
        size = self.threat.norm(state.x - batch.images)
        # pixels at the wall cannot move farther, so the others must move more
        free = torch.where(answer.gradient > 0, state.x < 1, state.x > 0)
        slope = _DUAL[self.threat.name].norm(answer.gradient * free)
        state.best = torch.where(reached, torch.minimum(state.best, size), state.best)
        there = size + answer.loss.abs() / slope.clamp(min=1e-12)
        # beyond, since a step onto the boundary of a linear model may never cross it
        larger = torch.where(state.best < torch.inf, state.radius, there) * (1 + gamma)
        smaller = torch.minimum(state.radius * (1 - gamma), state.best)
        state.radius = torch.minimum(torch.where(reached, smaller, larger), state.widest)

    def _scatter(self, state: FMNState, batch: Batch, wanted: Tensor) -> Tensor:
        """A perturbation drawn uniformly from the ball, plus the gradient wherever that is NaN."""
        drawn = self.threat.with_eps(1.0).sample(fold(batch.keys, "fmn/scatter"), wanted.shape[1:])
        return per_image(state.radius, wanted) * drawn.to(wanted) + torch.where(wanted.isnan(), wanted, 0)


def within(
    norm: str, originals: Float[Tensor, "n c h w"], wanted: Float[Tensor, "n c h w"], radius: Float[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """The nearest images to originals + wanted in the box and in balls that differ in radius.

    Args:
        norm: ``linf``, ``l2`` or ``l1``.
        radius: one for each row.
    """
    unit = per_image(radius.clamp(min=1e-12), wanted)
    if norm == "linf":  # needs no scaling
        return (originals + wanted.clamp(-unit, unit)).clamp_(0, 1)
    nearest = _NEAREST[norm](wanted / unit, 1.0, -originals / unit, (1 - originals) / unit)
    return (originals + unit * nearest).clamp_(0, 1)
