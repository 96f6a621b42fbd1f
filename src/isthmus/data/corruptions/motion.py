"""Motion blur as ImageMagick has it: a mean along a line that begins at the pixel, with half a Gaussian for weights."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from isthmus.core.randomness import uniform
from isthmus.data.corruptions.parameters import Severity

Images = Float[Tensor, "n c h w"]


def motion_blur(images: Images, severity: Severity, keys: Int64[Tensor, " n"]) -> Images:
    """``severity`` is (radius, σ) in pixels; each image is blurred in a direction of its own, −45° to 45°."""
    radius, sigma = severity
    return blur(images, radius, sigma, uniform(keys, ()) * 90.0 - 45.0)


def blur(images: Images, radius: float, sigma: float, degrees: Float[Tensor, " n"]) -> Images:
    """What ``MagickMotionBlurImage(radius, sigma, angle)`` makes of images of 8 bits, rounded to 8 bits.

    The published scripts read it back from a PNG that ImageMagick writes, in which half of the bytes are one level off.

    Tap i = 0 … 2⌈radius⌉ has weight exp(−i²/2σ²), and lies i pixels along (cos, sin) of the angle, rounded to a whole
    pixel, halves down; the rim is repeated outwards.

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
