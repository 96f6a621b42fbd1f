"""Blur without motion: defocus, glass and zoom."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from isthmus.core.randomness import fold, uniform
from isthmus.data.corruptions import filters
from isthmus.data.corruptions.parameters import Severity

Images = Float[Tensor, "n c h w"]
Keys = Int64[Tensor, " n"]


def defocus_blur(images: Images, severity: Severity, keys: Keys) -> Images:
    """Correlate with a disk: its radius in pixels, and the deviation of the Gaussian that smooths its rim."""
    kernel = filters.disk(*severity)
    reach = len(kernel) // 2
    inside = int((kernel[reach] > 0).sum()) // 2  # what lies beyond is zero
    kept = slice(reach - inside, reach + inside + 1)
    return filters.correlate(images, kernel[kept, kept], "reflect")


def zoom_blur(images: Images, severity: Severity, keys: Keys) -> Images:
    """The mean of the image and of its enlargements by 1, 1 + step, … below a bound: ``severity`` is (bound, step)."""
    factors = np.arange(1, *severity).tolist()
    planes = images.permute(2, 3, 0, 1).flatten(2).contiguous()
    total = planes.clone()
    for factor in factors:
        total += filters.clipped_zoom(planes, factor, axes=(0, 1))
    total /= len(factors) + 1
    height, width, _ = planes.shape
    return total.view(height, width, *images.shape[:2]).permute(2, 3, 0, 1)


def glass_blur(images: Images, severity: Severity, keys: Keys) -> Images:
    """Smooth, exchange each pixel with a near one, smooth again: ``severity`` is (σ, reach in pixels, rounds).

    Pixels are visited from the lower right to the upper left, and a partner lies at most ``reach`` rows and columns
    before and fewer than that after. In the scripts of ImageNet-C and CIFAR-10-C the exchange of a pixel of several
    channels only copies (its two sides are views of one array), and so it does here for 3 channels. Images of one
    channel exchange values, and each with probability ½, as in MNIST-C's.
    """
    sigma, reach, rounds = severity[0], int(severity[1]), int(severity[2])
    smooth = filters.quantised(filters.gaussian(images, sigma))
    sources = _exchanged if images.shape[1] == 1 else _copied
    height, width = images.shape[2:]
    for turn in range(rounds):
        taken = sources(fold(keys, "glass_blur/round", turn), height, width, reach)
        smooth = smooth.flatten(2).gather(2, taken.unsqueeze(1).expand(-1, images.shape[1], -1)).view_as(images)
    return filters.gaussian(smooth, sigma)


def _visited(size: int, reach: int, device: torch.device) -> Int64[Tensor, " k"]:
    return torch.arange(size - reach, reach, -1, device=device)


def _partners(keys: Keys, height: int, width: int, reach: int) -> tuple[Int64[Tensor, " k"], Int64[Tensor, "n k"]]:
    """Places of the visited pixels in order, and of each image's partners for them, as positions in a flat image."""
    rows, columns = (_visited(size, reach, keys.device) for size in (height, width))
    offsets = (uniform(keys, (2, len(rows), len(columns))) * (2 * reach)).long() - reach
    partner = (rows[:, None] + offsets[:, 0]) * width + columns + offsets[:, 1]
    return (rows[:, None] * width + columns).flatten(), partner.flatten(1)


def _copied(keys: Keys, height: int, width: int, reach: int) -> Int64[Tensor, "n pixels"]:
    """Which pixel each pixel is in the end a copy of.

    A partner that was visited before is itself a copy. Such chains lead to ever later places, and are followed all at
    once, each round twice as far.
    """
    places, partner = _partners(keys, height, width, reach)
    whole = torch.arange(height * width, device=keys.device)
    was_visited = torch.zeros(height * width, dtype=torch.bool, device=keys.device)
    was_visited[places] = True
    source = whole.repeat(len(keys), 1)
    source[:, places] = partner
    goes_on = was_visited[source] & (source > whole)  # later places are visited first
    following = torch.where(goes_on, source, whole)  # the next copy of a chain; its last one stays
    while goes_on.any():
        further = following.gather(1, following)
        goes_on = further != following
        following = further
    return source.gather(1, following)


def _exchanged(keys: Keys, height: int, width: int, reach: int) -> Int64[Tensor, "n pixels"]:
    """Which pixel's value each pixel has in the end."""
    places, partner = _partners(keys, height, width, reach)
    happens = uniform(fold(keys, "glass_blur/exchanged"), (len(places),)) < 0.5
    partner = torch.where(happens, partner, places).t().contiguous()
    values = torch.arange(height * width, device=keys.device).unsqueeze(1).repeat(1, len(keys))
    for place, other in zip(places.tolist(), partner, strict=True):
        here = values[place].clone()
        values[place] = values.gather(0, other.unsqueeze(0)).squeeze(0)
        values.scatter_(0, other.unsqueeze(0), here.unsqueeze(0))
    return values.t()
