"""What :mod:`isthmus.attacks.square` draws: how large its windows are at each step, where they lie, and their bumps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Ten-thousandths of the budget after which the share of pixels in a window is halved."""


@dataclass(frozen=True)
class Windows:
    """A window in each of n images, all in tensors as large as the largest needs.

    A smaller window repeats itself (offsets modulo its size): what is written to a pixel twice is the same both times.

    Attributes:
        top, left: first row and column, n×1; likewise ``height`` and ``width``.
        down, across: offsets from 0 up to the largest height and width.
    """

    top: Int[Tensor, "n 1"]
    left: Int[Tensor, "n 1"]
    height: Int[Tensor, "n 1"]
    width: Int[Tensor, "n 1"]
    down: Int[Tensor, " a"]
    across: Int[Tensor, " b"]

    @classmethod
    def drawn(cls, place: Float[Tensor, "n 2"], side: Int[Tensor, " n"], image: torch.Size) -> Self:
        """Squares, or rectangles where the image is too small for them, anywhere in images of this N×C×H×W.

        Args:
            place: uniform in [0, 1). Every position is possible; the authors' code never reaches the last row and
                column.
        """
        h, w = image[2:]
        height, width = (side.clamp(max=whole)[:, None] for whole in (h, w))
        offsets = torch.arange(int(side.max()), device=side.device)
        top, left = (place[:, :1] * (h - height + 1)).long(), (place[:, 1:] * (w - width + 1)).long()
        return cls(top, left, height, width, offsets[:h], offsets[:w])

    @property
    def rows(self) -> Int[Tensor, "n a"]:
        """Rows of the image."""
        return self.top + self.down % self.height

    @property
    def columns(self) -> Int[Tensor, "n b"]:
        """Columns of the image."""
        return self.left + self.across % self.width

    def cells(self, image: torch.Size) -> Int[Tensor, "n c a*b"]:
        """Positions in images flattened to N×C×(H·W)."""
        positions = self.rows[:, :, None] * image[3] + self.columns[:, None, :]
        return positions.flatten(1)[:, None].expand(-1, image[1], -1)

    @property
    def counted(self) -> Bool[Tensor, "n 1 a*b"]:
        """Cells that repeat no other."""
        return _outer(self.down < self.height, self.across < self.width)

    def hold(self, other: Windows) -> Bool[Tensor, "n 1 a*b"]:
        """Cells of other windows that lie in these."""
        down, across = other.rows - self.top, other.columns - self.left
        return _outer((down >= 0) & (down < self.height), (across >= 0) & (across < self.width))


def _outer(rows: Tensor, columns: Tensor) -> Tensor:
    return (rows[:, :, None] & columns[:, None, :]).flatten(1)[:, None]


@lru_cache(maxsize=16)
def sides(p_init: float, steps: int, height: int, width: int, device: torch.device) -> Int[Tensor, " steps"]:
    """Side of the window at each step: √(p·H·W), at least 1, where p is halved as the budget is spent."""
    spent = torch.arange(steps) * 10_000 // steps
    halvings = torch.bucketize(spent, torch.tensor(HALVINGS)).double()
    return (p_init / 2**halvings * height * width).sqrt().round().long().clamp(min=1).to(device)


@lru_cache(maxsize=16)
def bumps(
    p_init: float, steps: int, height: int, width: int, device: torch.device, power: int
) -> tuple[Int[Tensor, " steps"], Int[Tensor, " steps"], Float[Tensor, "distinct side side"]]:
    """Sides as ℓ2 and ℓ1 need them; the number of each step's bump; and the bumps, repeated like a window's cells.

    Sides are odd and at least 3, as far as the image is large enough.
    """
    plain = sides(p_init, steps, height, width, torch.device("cpu")).clamp(min=3)
    odd = (plain + (plain + 1) % 2).clamp(max=min(height, width))
    distinct = sorted(set(odd.tolist()))
    offsets = torch.arange(distinct[-1])
    every = torch.stack([bump(side, power)[offsets % side][:, offsets % side] for side in distinct])
    return odd.to(device), torch.searchsorted(torch.tensor(distinct), odd).to(device), every.to(device)


def bump(side: int, power: int) -> Float[Tensor, "side side"]:
    """η of algorithm 3: a hill in the upper half and a hollow in the lower, of norm 1.

    Args:
        power: 2 for ℓ2; 1 for ℓ1, where AutoAttack has steeper hills.
    """
    return _scaled(torch.cat([_hill(side // 2, side, power), -_hill(side - side // 2, side, power)]), power)


def _hill(height: int, width: int, power: int) -> Tensor:
    """Rectangular rings around the centre, Σ_{k ≥ ring} 1/(k + 1)² high; in ℓ1 1/(k + 1)⁴."""
    if height == 0:
        return torch.zeros(0, width)
    rings = 1.0 / torch.arange(1, max(height, width) // 2 + 2) ** (2 if power == 2 else 4)
    heights = rings.flip(0).cumsum(0).flip(0)
    down, across = ((torch.arange(size) - size // 2).abs() for size in (height, width))
    return _scaled(heights[torch.maximum(down[:, None], across)], power)


def _scaled(hill: Tensor, power: int) -> Tensor:
    scaled: Tensor = hill / torch.linalg.vector_norm(hill.flatten(), power)
    return scaled
