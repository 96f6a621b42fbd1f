"""Noise of each pixel by itself: Gaussian, shot (Poisson) and impulse noise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from isthmus.core.randomness import normal, uniform
from isthmus.data.corruptions.parameters import Severity

Images = Float[Tensor, "n c h w"]
Keys = Int64[Tensor, " n"]


def gaussian_noise(images: Images, severity: Severity, keys: Keys) -> Images:
    """Add normal noise of the deviation ``severity[0]``."""
    return images + severity[0] * normal(keys, tuple(images.shape[1:]))


def shot_noise(images: Images, severity: Severity, keys: Keys) -> Images:
    """Poisson counts of ``severity[0]`` photons where a pixel is white, divided by that number.

    A count is the quantile of a uniform number. Pixels have 256 values, so all quantile functions are one table.
    """
    photons = severity[0]
    table, counts = _poisson_table(photons, images.device)
    levels = (images * 255.0).round_().double()
    # numbers in the middle of their 2⁻²⁴, so that none is 0; level k's distribution function occupies (k, k + 1]
    numbers = uniform(keys, tuple(images.shape[1:])).double().add_(2.0**-25)
    places = torch.searchsorted(table, numbers.add_(levels))
    return (places - levels.long() * counts).float() / photons


@lru_cache(maxsize=16)
def _poisson_table(photons: float, device: torch.device) -> tuple[Float64[Tensor, " levels_counts"], int]:
    """Distribution functions of Poisson counts with means k/255·photons, k = 0 … 255, one after another."""
    from scipy.special import pdtr

    counts = int(photons + 10 * photons**0.5 + 20)  # beyond, less than 2⁻²⁴ is left of the tail, as of the numbers
    level = np.arange(256)[:, None]
    table = level + pdtr(np.arange(counts)[None], level / 255 * photons)
    table[:, -1] = level[:, 0] + 1
    return torch.from_numpy(table.ravel()).to(device), counts


def impulse_noise(images: Images, severity: Severity, keys: Keys) -> Images:
    """Turn a share ``severity[0]`` of all values black or white, as often the one as the other, each by itself."""
    drawn, share = uniform(keys, tuple(images.shape[1:])), severity[0]
    return images.masked_fill(drawn < share, 1.0).masked_fill_(drawn < share / 2, 0.0)
