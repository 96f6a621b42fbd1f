"""The elastic transform (Simard, Steinkraus & Platt 2003): a random affine map, then smooth random shifts."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import grid_sample

from isthmus.core.randomness import fold, uniform
from isthmus.data.corruptions.filters import gaussian_taps
from isthmus.data.corruptions.parameters import Severity

Images = Float[Tensor, "n c h w"]
Keys = Int64[Tensor, " n"]


def elastic_transform(images: Images, severity: Severity, keys: Keys, black: bool) -> Images:
    """``severity`` is (α, σ, how far three points move at most), all in sides of the image.

    The affine map takes three points around the middle to where they moved, and repeats the image beyond its rims,
    reflected about the last pixels; shifts are uniform noise in [−α, α], smoothed by a Gaussian of deviation σ, and
    reflect about the rims themselves. Both interpolate linearly.

    Args:
        black: take black from beyond the rims instead, as MNIST-C does.
    """
    size = images.shape[-1]
    alpha, sigma, moved = (part * size for part in severity)
    pixels = torch.arange(size, dtype=torch.float64, device=images.device)
    places = torch.stack([pixels.expand(size, size), pixels[:, None].expand(size, size)], -1)
    back = _affine_back(keys, size, moved)
    affine = torch.einsum("nij,hwj->nhwi", back[:, :, :2], places) + back[:, None, None, :, 2]
    images = _sampled(images, affine, "zeros" if black else "reflection", about_pixels=True)
    if alpha == 0:
        return images
    noise = uniform(fold(keys, "elastic_transform/shifts"), (2, size, size)).double() * 2 - 1
    smooth = _smoothing(size, sigma).to(images.device)
    shifts = (smooth @ noise @ smooth.t()) * alpha
    moved_places = places + shifts.permute(0, 2, 3, 1)
    if black:
        inside = ((moved_places >= 0) & (moved_places <= size - 1)).all(-1).unsqueeze(1)
        return _sampled(images, moved_places, "border", about_pixels=True) * inside
    return _sampled(images, moved_places, "reflection", about_pixels=False)


def _affine_back(keys: Keys, size: int, moved: float) -> Float64[Tensor, "n 2 3"]:
    """From a place (x, y) of the result to the one of the image that it shows."""
    middle, reach = size // 2, size // 3
    points = torch.tensor(
        [
            [middle + reach, middle + reach],
            [middle + reach, middle - reach],
            [middle - reach, middle - reach],
        ],
        dtype=torch.float64,
        device=keys.device,
    )
    there = points + (uniform(keys, (3, 2)).double() * 2 - 1) * moved
    known = torch.cat([there, torch.ones_like(there[..., :1])], -1)
    back: Tensor = torch.linalg.solve(known, points.expand_as(there))
    return back.transpose(1, 2)


@lru_cache(maxsize=16)
def _smoothing(size: int, sigma: float) -> Float64[Tensor, "size size"]:
    """Gaussian smoothing of a line, cut off at 3σ and reflected about its ends however often, as a matrix."""
    taps = gaussian_taps(sigma, 3.0)
    reach = len(taps) // 2
    places = (torch.arange(size)[:, None] + torch.arange(-reach, reach + 1)) % (2 * size)
    places = torch.where(places < size, places, 2 * size - 1 - places)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, places, taps.expand(size, -1).contiguous())


def _sampled(images: Images, places: Float64[Tensor, "n h w 2"], beyond: str, about_pixels: bool) -> Images:
    """The images at places (x, y), in pixels, between which values are interpolated."""
    size = images.shape[-1]
    grid = places * (2 / (size - 1)) - 1 if about_pixels else (places * 2 + 1) / size - 1
    return grid_sample(images, grid.float(), padding_mode=beyond, align_corners=about_pixels)
