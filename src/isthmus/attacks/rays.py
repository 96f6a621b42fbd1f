"""RayS: decisions alone, by a search among the corners of a cube (Chen & Gu 2020, arXiv:2006.12792).

Needs neither gradients nor logits: only whether an image is adversarial. So hidden gradients do not protect a model
from it, nor does returning only labels. A direction of signs is refined block by block, from the whole image to
single pixels; a block's signs are flipped if that makes the decision boundary closer. Follows the authors' code but
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

from isthmus.attacks.attack import AttackState, IterativeAttack, counters
from isthmus.attacks.engine.batch import Batch, per_image
from isthmus.attacks.engine.counted_model import Answer
from isthmus.core.randomness import fold, uniform

_ACCURACY = 0.01  # of the distance to the boundary
_INSIDE = 1 - 1e-6  # of ε, so that rounding does not lead out of the ball


@dataclass
class RayState(AttackState):
    """A direction, and the one that is tried in its place.

    Attributes:
        signs: the direction.
        radius: distance of the boundary along it, ∞ before any is known.
        level: blocks are an image's pixels cut into 2^level parts; −1 while the direction itself is tried.
        block: number of the part that is flipped.
        low, high: distances along the tried direction between which its boundary lies; ``high`` is ∞ while it is not
            known whether that is closer.
    """

    signs: Float[Tensor, "n c h w"]
    radius: Float[Tensor, " n"]
    level: Int[Tensor, " n"]
    block: Int[Tensor, " n"]
    low: Float[Tensor, " n"]
    high: Float[Tensor, " n"]


class RayS(IterativeAttack[RayState]):
    """Flip blocks of a direction of signs, and keep those that make the boundary closer.

    ``rays:1000`` is short for 1000 queries.

    Attributes:
        queries: forward passes of a run, the last judgement included.
        restarts: runs per example. The first starts at equal signs, as in the paper; the others at random ones.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    gradient: ClassVar[bool] = False
    inside: ClassVar[bool] = False
    argument: ClassVar[str | None] = "queries"
    name: Literal["rays"] = "rays"
    queries: Annotated[int, Field(ge=2)] = 10000
    restarts: Annotated[int, Field(gt=0)] = 1

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> RayState:
        """As far as the box allows along equal signs, or random ones after the first run."""
        images = batch.images
        n, endless = len(images), images.new_full((len(images),), torch.inf)
        drawn = uniform(fold(batch.keys, "rays/start"), tuple(images.shape[1:])).to(images)
        signs = torch.where(per_image(number > 0, images) & (drawn < 0.5), -1.0, torch.ones_like(images))
        step, budget = counters(n, self.queries - 1, images)
        zeros = torch.zeros_like(endless)
        state = RayState(images.clone(), step, budget, signs, endless, step - 1, step.clone(), zeros, endless.clone())
        state.x = self._at(batch, signs, self._farthest(images))
        return state

    def step(self, state: RayState, batch: Batch, answer: Answer) -> None:
        """Halve the interval that holds the boundary, or try the next direction."""
        hit = batch.reached(answer.logits) & answer.finite
        tried = self._tried(state)
        at = self._distance(state, batch)
        known = state.high.isfinite()
        state.low = torch.where(known & ~hit, at, state.low)
        state.high = torch.where(hit, at, state.high)
        found = state.high.isfinite() & (state.high - state.low <= _ACCURACY * state.high)
        state.signs = torch.where(per_image(found, tried), tried, state.signs)
        state.radius = torch.where(found, state.high, state.radius)
        self._next(state, batch, found | state.high.isinf())
        state.step += 1
        last = state.step >= state.budget
        where = torch.where(last & state.radius.isfinite(), state.radius, self._distance(state, batch))
        direction = torch.where(per_image(last & state.radius.isfinite(), tried), state.signs, self._tried(state))
        state.x = self._at(batch, direction, where)

    def _distance(self, state: RayState, batch: Batch) -> Float[Tensor, " n"]:
        """Distance of the next query: the middle of the interval, or a little less than the best radius."""
        nearer = torch.minimum(state.radius * (1 - _ACCURACY), self._farthest(batch.images))
        return torch.where(state.high.isfinite(), (state.low + state.high) / 2, nearer)

    def _next(self, state: RayState, batch: Batch, over: Bool[Tensor, " n"]) -> None:
        """The next block where a direction is over; other directions altogether while no boundary is known."""
        state.low, state.high = state.low.masked_fill(over, 0), state.high.masked_fill(over, torch.inf)
        pixels = state.signs[0].numel()
        size = self._size(state.level, pixels)
        done = over & ((state.level < 0) | ((state.block + 1) * size >= pixels))
        state.block = torch.where(done, 0, state.block + over.long())
        state.level = (state.level + done.long()).clamp(max=_levels(pixels))
        lost = over & state.radius.isinf()
        if lost.any():
            state.signs = torch.where(per_image(lost, state.signs), self._drawn(state, batch), state.signs)
            state.level = state.level.masked_fill(lost, -1)

    def _drawn(self, state: RayState, batch: Batch) -> Float[Tensor, "n c h w"]:
        """Random signs of blocks, in turn large and small."""
        shape = batch.images.shape
        pixels = shape[1:].numel()
        size = self._size(state.step % (_levels(pixels) + 1), pixels)
        block = torch.arange(pixels, device=size.device) // size[:, None]
        drawn = uniform(fold(batch.keys, "rays/direction", state.step), (pixels,)).to(batch.images).gather(1, block)
        return torch.where(drawn < 0.5, -1.0, 1.0).to(batch.images).view(shape)

    def _tried(self, state: RayState) -> Float[Tensor, "n c h w"]:
        """The direction with one block flipped, or itself."""
        flat = state.signs.flatten(1)
        size = self._size(state.level, flat.shape[1])
        slots = torch.arange(flat.shape[1], device=flat.device)
        flipped = (slots // size[:, None] == state.block[:, None]) & (state.level >= 0)[:, None]
        return torch.where(flipped, -flat, flat).view_as(state.signs)

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
