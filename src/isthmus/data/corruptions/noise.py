"""Independent noise of each pixel: Gaussian, shot (Poisson) and impulse noise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from isthmus.core.randomness import normal, uniform
from isthmus.data.corruptions.parameters import Images, Keys, Severity


def gaussian_noise(images: Images, severity: Severity, keys: Keys) -> Images:
    """Add normal noise with standard deviation ``severity[0]``."""
    return images + severity[0] * normal(keys, tuple(images.shape[1:]))


def shot_noise(images: Images, severity: Severity, keys: Keys) -> Images:
    """Poisson counts, with a mean of ``severity[0]`` photons for a white pixel, divided by that number.

    A count is the quantile of a uniform number. Pixels have 256 values, so one table holds all quantile functions.
    """
    photons = severity[0]
    table, counts = _poisson_table(photons, images.device)
    levels = (images * 255.0).round_().double()
    # numbers at the centre of their 2⁻²⁴ bins, so that none is 0; level k's distribution function occupies (k, k + 1]
    numbers = uniform(keys, tuple(images.shape[1:])).double().add_(2.0**-25)
    places = torch.searchsorted(table, numbers.add_(levels))
    return (places - levels.long() * counts).float() / photons


@lru_cache(maxsize=16)
def _poisson_table(photons: float, device: torch.device) -> tuple[Float64[Tensor, " levels_counts"], int]:
    """Distribution functions of Poisson counts with means k/255·photons, k = 0 … 255, concatenated."""
    from scipy.special import pdtr

    counts = int(photons + 10 * photons**0.5 + 20)  # the tail beyond is below 2⁻²⁴, the resolution of the numbers
    level = np.arange(256)[:, None]
    table = level + pdtr(np.arange(counts)[None], level / 255 * photons)
    table[:, -1] = level[:, 0] + 1
    return torch.from_numpy(table.ravel()).to(device), counts


def impulse_noise(images: Images, severity: Severity, keys: Keys) -> Images:
    """Make a fraction ``severity[0]`` of all values black or white, each with probability ½."""
    drawn, share = uniform(keys, tuple(images.shape[1:])), severity[0]
    return images.masked_fill(drawn < share, 1.0).masked_fill_(drawn < share / 2, 0.0)
