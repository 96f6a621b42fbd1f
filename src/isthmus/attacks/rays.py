"""RayS: decisions alone, by a search among the corners of a cube (Chen & Gu 2020, arXiv:2006.12792).

Needs neither gradients nor logits: only whether an image is adversarial. So nothing that hides gradients helps against
it, nor a model that answers with labels alone. A direction of signs is refined block by block, from the whole image to
single pixels; a block's signs are flipped if that brings the decision boundary nearer. Follows the authors' code but
for two details: the boundary is located to within a hundredth of its distance, not to within 0.001; and as long as no
direction crosses it, random signs of blocks are tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.iterative import AttackState, IterativeAttack, counters
from isthmus.attacks.engine.rows import per_image
from isthmus.attacks.threats import L2, Linf, Threat
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError
from isthmus.core.randomness import fold, uniform

_ACCURACY = 0.01  # of the distance to the boundary
_INSIDE = 1 - 1e-6  # of ε, so that rounding does not lead out of the ball


class Config(Component):
    """Options of RayS. ``rays:1000`` is short for 1000 queries.

    Attributes:
        queries: forward passes of a run, the last judgement included.
        restarts: runs per example. The first starts at equal signs, as in the paper; the others at random ones.
    """

    argument: ClassVar[str | None] = "queries"
    name: Literal["rays"] = "rays"
    queries: Annotated[int, Field(ge=2)] = 10000
    restarts: Annotated[int, Field(gt=0)] = 1


def search(config: Config, threat: Threat, classes: int) -> IterativeAttack[Ray]:
    """Flip blocks of a direction of signs, and keep what brings the boundary nearer.

    Raises:
        ConfigError: the threat's norm is neither ℓ∞ nor ℓ2.
    """
    if not isinstance(threat, Linf | L2):
        raise ConfigError(f"rays searches in the norms linf and l2; got {threat}. Use square in l1.")
    return Rays(config, threat)


@dataclass
class Ray(AttackState):
    """A direction, and the one that is tried in its place.

    Attributes:
        signs: the direction.
        radius: distance of the boundary along it, ∞ before any is known.
        level: blocks are an image's pixels cut into 2^level parts; −1 while the direction itself is tried.
        block: number of the part that is flipped.
        low, high: distances along the tried direction between which its boundary lies; ``high`` is ∞ while it is not
            known whether that is nearer.
    """

    signs: Float[Tensor, "n c h w"]
    radius: Float[Tensor, " n"]
    level: Int[Tensor, " n"]
    block: Int[Tensor, " n"]
    low: Float[Tensor, " n"]
    high: Float[Tensor, " n"]


class Rays(IterativeAttack[Ray]):
    """RayS, each row with its own direction."""

    gradient: ClassVar[bool] = False
    inside = False

    def __init__(self, config: Config, threat: Threat) -> None:
        self.config, self.threat, self.runs = config, threat, config.restarts

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> Ray:
        """As far as the box allows along equal signs, or random ones after the first run."""
        images = batch.images
        n, endless = len(images), images.new_full((len(images),), torch.inf)
        drawn = uniform(fold(batch.keys, "rays/start"), tuple(images.shape[1:])).to(images)
        signs = torch.where(per_image(number > 0, images) & (drawn < 0.5), -1.0, torch.ones_like(images))
        step, budget = counters(n, self.config.queries - 1, images)
        zeros = torch.zeros_like(endless)
        runs = Ray(images.clone(), step, budget, signs, endless, step - 1, step.clone(), zeros, endless.clone())
        runs.x = self._at(batch, signs, self._farthest(images))
        return runs

    def step(self, runs: Ray, batch: Batch, answer: Answer) -> None:
        """Halve the interval that holds the boundary, or try the next direction."""
        hit = batch.reached(answer.logits) & answer.finite
        tried = self._tried(runs)
        at = self._distance(runs, batch)
        known = runs.high.isfinite()
        runs.low = torch.where(known & ~hit, at, runs.low)
        runs.high = torch.where(hit, at, runs.high)
        found = runs.high.isfinite() & (runs.high - runs.low <= _ACCURACY * runs.high)
        runs.signs = torch.where(per_image(found, tried), tried, runs.signs)
        runs.radius = torch.where(found, runs.high, runs.radius)
        self._next(runs, batch, found | runs.high.isinf())
        runs.step += 1
        last = runs.step >= runs.budget
        where = torch.where(last & runs.radius.isfinite(), runs.radius, self._distance(runs, batch))
        direction = torch.where(per_image(last & runs.radius.isfinite(), tried), runs.signs, self._tried(runs))
        runs.x = self._at(batch, direction, where)

    def _distance(self, runs: Ray, batch: Batch) -> Float[Tensor, " n"]:
        """Where the tried direction is looked at: in the middle of the interval, else just nearer than the best."""
        nearer = torch.minimum(runs.radius * (1 - _ACCURACY), self._farthest(batch.images))
        return torch.where(runs.high.isfinite(), (runs.low + runs.high) / 2, nearer)

    def _next(self, runs: Ray, batch: Batch, over: Bool[Tensor, " n"]) -> None:
        """The next block where a direction is over; other directions altogether while no boundary is known."""
        runs.low, runs.high = runs.low.masked_fill(over, 0), runs.high.masked_fill(over, torch.inf)
        pixels = runs.signs[0].numel()
        size = self._size(runs.level, pixels)
        done = over & ((runs.level < 0) | ((runs.block + 1) * size >= pixels))
        runs.block = torch.where(done, 0, runs.block + over.long())
        runs.level = (runs.level + done.long()).clamp(max=_levels(pixels))
        lost = over & runs.radius.isinf()
        if lost.any():
            runs.signs = torch.where(per_image(lost, runs.signs), self._drawn(runs, batch), runs.signs)
            runs.level = runs.level.masked_fill(lost, -1)

    def _drawn(self, runs: Ray, batch: Batch) -> Float[Tensor, "n c h w"]:
        """Random signs of blocks, in turn large and small."""
        shape = batch.images.shape
        pixels = shape[1:].numel()
        size = self._size(runs.step % (_levels(pixels) + 1), pixels)
        block = torch.arange(pixels, device=size.device) // size[:, None]
        drawn = uniform(fold(batch.keys, "rays/direction", runs.step), (pixels,)).to(batch.images).gather(1, block)
        return torch.where(drawn < 0.5, -1.0, 1.0).to(batch.images).view(shape)

    def _tried(self, runs: Ray) -> Float[Tensor, "n c h w"]:
        """The direction with one block flipped, or itself."""
        flat = runs.signs.flatten(1)
        size = self._size(runs.level, flat.shape[1])
        slots = torch.arange(flat.shape[1], device=flat.device)
        flipped = (slots // size[:, None] == runs.block[:, None]) & (runs.level >= 0)[:, None]
        return torch.where(flipped, -flat, flat).view_as(runs.signs)

    @staticmethod
    def _size(level: Int[Tensor, " n"], pixels: int) -> Int[Tensor, " n"]:
        """Of a block, in pixels: all of them over 2^level, rounded up."""
        return -(-pixels // 2 ** level.clamp(min=0))

    def _at(
        self, batch: Batch, signs: Float[Tensor, "n c h w"], distance: Float[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        unit = signs / per_image(self.threat.norm(signs), signs)
        return (batch.images + per_image(distance * _INSIDE, signs) * unit).clamp(0, 1)

    def _farthest(self, images: Tensor) -> Float[Tensor, " n"]:
        """Distance at which every direction of signs has left the box in all pixels."""
        return self.threat.norm(torch.ones_like(images))


def _levels(pixels: int) -> int:
    """The level at which a block is one pixel."""
    return (pixels - 1).bit_length()
