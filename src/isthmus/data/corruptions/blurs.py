"""Blurs: defocus, glass, zoom, and motion as ImageMagick implements it."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from isthmus.core.randomness import fold, uniform
from isthmus.data.corruptions import filters
from isthmus.data.corruptions.parameters import Images, Keys, Severity


def motion_blur(images: Images, severity: Severity, keys: Keys) -> Images:
    """``severity`` is (radius, σ) in pixels; each image is blurred in a random direction from −45° to 45°."""
    radius, sigma = severity
    return blur_along(images, radius, sigma, uniform(keys, ()) * 90.0 - 45.0)


def blur_along(images: Images, radius: float, sigma: float, degrees: Float[Tensor, " n"]) -> Images:
    """What ``MagickMotionBlurImage(radius, sigma, angle)`` makes of images of 8 bits, rounded to 8 bits.

    The published scripts read a PNG written by ImageMagick, in which half of the bytes differ by one level.

    Tap i = 0 … 2⌈radius⌉ has weight exp(−i²/2σ²), at i pixels along (cos, sin) of the angle, rounded to whole pixels,
    ties down; edges are replicated.

    Args:
        degrees: clockwise from the direction of rows, as rows count downwards.
    """
    taps = torch.arange(2 * math.ceil(radius) + 1, dtype=torch.float64, device=images.device)
    weights = torch.exp(-(taps**2) / (2.0 * sigma**2))
    weights /= weights.sum()
    turn = torch.deg2rad(degrees.double())[:, None]
    across = torch.ceil(taps * turn.cos() - 0.5).long()
    down = torch.ceil(taps * turn.sin() - 0.5).long()
    height, width = images.shape[2:]
    row = torch.arange(height, device=images.device)
    column = torch.arange(width, device=images.device)
    flat, total = images.flatten(2), torch.zeros_like(images).flatten(2)
    for tap, weight in enumerate(weights.tolist()):
        rows = (row + down[:, tap, None]).clamp_(0, height - 1) * width
        places = (rows[:, :, None] + (column + across[:, tap, None]).clamp_(0, width - 1)[:, None]).flatten(1)
        total += weight * flat.gather(2, places.unsqueeze(1).expand_as(flat))
    return total.mul_(255.0).round_().div_(255.0).view_as(images)


def defocus_blur(images: Images, severity: Severity, keys: Keys) -> Images:
    """Correlate with a disk; ``severity`` is its radius in pixels and the σ of the Gaussian that smooths its edge."""
    kernel = filters.disk(*severity)
    reach = len(kernel) // 2
    inside = int((kernel[reach] > 0).sum()) // 2  # zero outside
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

    Pixels are visited from the lower right to the upper left. A partner is at most ``reach`` rows and columns before,
    and fewer than that after. The scripts of ImageNet-C and CIFAR-10-C only copy where they mean to exchange (both
    sides are views of one array), and so does this for 3 channels. Images of one channel exchange values, each with
    probability ½, as in the script of MNIST-C.
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
    """Positions in a flat image of the visited pixels, in order, and of their partners in each image."""
    rows, columns = (_visited(size, reach, keys.device) for size in (height, width))
    offsets = (uniform(keys, (2, len(rows), len(columns))) * (2 * reach)).long() - reach
    partner = (rows[:, None] + offsets[:, 0]) * width + columns + offsets[:, 1]
    return (rows[:, None] * width + columns).flatten(), partner.flatten(1)


def _copied(keys: Keys, height: int, width: int, reach: int) -> Int64[Tensor, "n pixels"]:
    """The pixel that each pixel is finally a copy of.

    A partner that was visited before is itself a copy. Such chains lead to ever later positions; all are followed at
    once, by pointer doubling.
    """
    places, partner = _partners(keys, height, width, reach)
    whole = torch.arange(height * width, device=keys.device)
    was_visited = torch.zeros(height * width, dtype=torch.bool, device=keys.device)
    was_visited[places] = True
    source = whole.repeat(len(keys), 1)
    source[:, places] = partner
    unfinished = was_visited[source] & (source > whole)  # later places are visited first
    following = torch.where(unfinished, source, whole)  # the next copy of a chain; the last one is fixed
    while unfinished.any():
        further = following.gather(1, following)
        unfinished = further != following
        following = further
    return source.gather(1, following)


def _exchanged(keys: Keys, height: int, width: int, reach: int) -> Int64[Tensor, "n pixels"]:
    """The pixel whose value each pixel finally has."""
    places, partner = _partners(keys, height, width, reach)
    happens = uniform(fold(keys, "glass_blur/exchanged"), (len(places),)) < 0.5
    partner = torch.where(happens, partner, places).t().contiguous()
    values = torch.arange(height * width, device=keys.device).unsqueeze(1).repeat(1, len(keys))
    for place, other in zip(places.tolist(), partner, strict=True):
        here = values[place].clone()
        values[place] = values.gather(0, other.unsqueeze(0)).squeeze(0)
        values.scatter_(0, other.unsqueeze(0), here.unsqueeze(0))
    return values.t()
