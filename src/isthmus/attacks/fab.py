"""FAB: steps onto the linearised decision boundary, kept near the original (Croce & Hein 2020, arXiv:1907.02044).

Unlike PGD it does not use ε: it searches for the nearest adversarial image, and succeeds if one lies in the ball.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from isthmus.attacks.attack import AttackState, IterativeAttack, counters
from isthmus.attacks.engine.batch import Batch, per_image
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.hyperplane import PROJECTIONS
from isthmus.core.randomness import fold, normal, uniform

_LEAST = 1e-8  # a move is taken to be no shorter, so that shares of two that are zero are defined


class FAB(IterativeAttack[AttackState]):
    """Project iterate and original onto z_t = z_y, linearised at the iterate, and go between the two; step back inside.

    In ℓ∞, ℓ2 and ℓ1. Steps with a gradient, which project, alternate with steps without, which check the projection. An
    adversarial image counts if it lies in the ball; one outside still guides the run.

    ``fab:20`` is short for 20 steps.

    Attributes:
        steps: projections of a run. Each costs a query with a gradient, and one forward only that checks the result.
        targets: this many runs per restart, each towards the boundary with another wrong class, those with the largest
            clean logits first. This is AutoAttack's FAB-T. With 0 a run goes to the boundary with the other class of
            largest logit at its iterate. (The original without targets compares the distances of all linearised
            boundaries, at the price of a backward pass for every class.)
        restarts: of each. The first starts at the image, the others in a random direction at distance ε/2.
        alpha_max: largest weight of the original's projection in a step.
        eta: by what factor steps go beyond the boundary's linearisation.
        beta: fraction of the perturbation that remains after stepping back from an adversarial image.
    """

    inside: ClassVar[bool] = False
    argument: ClassVar[str | None] = "steps"
    name: Literal["fab"] = "fab"
    steps: Annotated[int, Field(gt=0)] = 100
    targets: Annotated[int, Field(ge=0)] = 9
    restarts: Annotated[int, Field(gt=0)] = 1
    alpha_max: Annotated[float, Field(ge=0, le=1)] = 0.1
    eta: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.05
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.9

    @property
    def n_targets(self) -> int:
        """The option ``targets``, at most all wrong classes."""
        return min(self.targets, self._classes - 1)

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> AttackState:
        """Start at the image if a run is the first for its target class, else in a random direction at distance ε/2.

        In a targeted evaluation all runs have one target class.
        """
        firsts = 1 if batch.targets is not None else max(self.n_targets, 1)
        x, later = batch.images.clone(), (number >= firsts).nonzero().squeeze(1)
        if len(later):
            x[later] = self._aside(batch.take(later))
        return AttackState(x, *counters(len(batch), 2 * self.steps - 1, x))

    def _aside(self, batch: Batch) -> Tensor:
        keys, shape = fold(batch.keys, "fab/start"), tuple(batch.images.shape[1:])
        drawn = 2 * uniform(keys, shape) - 1 if self.threat.name == "linf" else normal(keys, shape)
        sizes = per_image(self.threat.norm(drawn).clamp(min=_LEAST), drawn)
        return (batch.images + 0.5 * self.threat.eps / sizes * drawn).clamp(0, 1)

    def objective(self, state: AttackState, batch: Batch, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """z_t − z_y, which is 0 at the boundary."""
        return batch.difference(logits)

    def wants(self, state: AttackState) -> Bool[Tensor, " n"]:
        """A gradient at every other step: the projected image is only checked."""
        return state.step % 2 == 0

    def step(self, state: AttackState, batch: Batch, answer: Answer) -> None:
        """After a step with a gradient, project; after a check, step back from adversarial images."""
        wants = self.wants(state)
        rows = wants.nonzero().squeeze(1)
        if len(rows):
            x, originals, gradient = (c.index_select(0, rows) for c in (state.x, batch.images, answer.gradient))
            state.x[rows] = self._step(x, originals, answer.loss[rows], gradient)
        rows = (~wants & batch.reached(answer.logits)).nonzero().squeeze(1)
        if len(rows):
            x, originals = state.x.index_select(0, rows), batch.images.index_select(0, rows)
            state.x[rows] = x.sub_(originals).mul_(self.beta).add_(originals)
        state.step += 1

    def _step(self, x: Tensor, originals: Tensor, values: Tensor, gradient: Tensor) -> Tensor:
        """A point between the two projections, closer to the iterate's, extrapolated by η."""
        points, normals = torch.stack([x, originals]).flatten(2), gradient.flatten(1)
        there = (points[0] - points[1]).mul_(normals).sum(1)  # how far the linearisation falls short at the original
        moves = PROJECTIONS[self.threat.name](points, normals, torch.stack([-values, there - values]))
        sizes = torch.stack([self.threat.norm(moves[0]), self.threat.norm(moves[1])]).clamp(min=_LEAST)
        share = (sizes[0] / sizes.sum(0)).clamp(max=self.alpha_max).unsqueeze(1)
        ends = points.add_(moves, alpha=self.eta)
        return ends[0].lerp_(ends[1], share).clamp_(0, 1).view_as(x)
