"""Height maps by the diamond-square algorithm (Fournier, Fussell & Carpenter 1982), for fog."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from isthmus.core.randomness import fold, uniform

_ROUGHNESS = 100.0


def plasma(keys: Int64[Tensor, " n"], size: int, decay: float) -> Float[Tensor, "n size size"]:
    """A map for each key, from 0 at its lowest point to 1 at its highest, that repeats itself beyond its rims.

    Each level halves the distance between known points: first the middles of squares, then of their sides become the
    mean of their four neighbours plus uniform noise, whose reach falls by ``decay`` a level. The noise reaches to the
    square of the roughness at that level, which is how the published script has it.

    Args:
        size: a power of two.
    """
    grid = torch.zeros(len(keys), size, size, device=keys.device)
    roughness = _ROUGHNESS
    step, level = size, 0
    while step >= 2:
        half = step // 2
        corners = grid[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 2)
        middles = _between(pairs + pairs.roll(-1, 1), fold(keys, "plasma/middles", level), roughness)
        grid[:, half::step, half::step] = middles
        above = middles + middles.roll(1, 1) + pairs
        grid[:, ::step, half::step] = _between(above, fold(keys, "plasma/above", level), roughness)
        beside = middles + middles.roll(1, 2) + corners + corners.roll(-1, 1)
        grid[:, half::step, ::step] = _between(beside, fold(keys, "plasma/beside", level), roughness)
        step, level, roughness = half, level + 1, roughness / decay
    grid -= grid.amin((1, 2), keepdim=True)
    return grid / grid.amax((1, 2), keepdim=True)


def _between(sums: Float[Tensor, "n k k"], keys: Int64[Tensor, " n"], roughness: float) -> Float[Tensor, "n k k"]:
    noise = uniform(keys, tuple(sums.shape[1:])) * (2 * roughness) - roughness
    return sums / 4 + roughness * noise
