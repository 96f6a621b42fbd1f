"""Smoothing, zooming and resampling of whole batches, for several corruptions."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn.functional import pad


def quantised(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Bytes as fractions of 255, rounded down as the published scripts do.

    They compute in float64; adding a thousandth of a level prevents float32 from losing one.
    """
    return images.mul(255.0).add_(1e-3).floor_().clamp_(0.0, 255.0).div_(255.0)


def correlate(images: Float[Tensor, "n c h w"], kernel: Float[Tensor, "k k"], mode: str) -> Float[Tensor, "n c h w"]:
    """Correlate each channel with a kernel of odd sides. ``mode`` of padding: "reflect" (about pixels) or "replicate".

    Sums tap by tap, so that results do not depend on the batch; the summation order of a convolution would.
    """
    reach_y, reach_x = (side // 2 for side in kernel.shape)
    height, width = images.shape[2:]
    padded = pad(images, (reach_x, reach_x, reach_y, reach_y), mode=mode)
    total = torch.zeros_like(images)
    for down, row in enumerate(kernel.tolist()):
        for across, weight in enumerate(row):
            if weight:
                total.add_(padded[:, :, down : down + height, across : across + width], alpha=weight)
    return total


def gaussian(images: Float[Tensor, "n c h w"], sigma: float) -> Float[Tensor, "n c h w"]:
    """Gaussian smoothing within each channel, truncated at 4σ, edges replicated (scikit-image's default)."""
    taps = gaussian_taps(sigma, 4.0).float()
    if len(taps) == 1:
        return images
    return correlate(correlate(images, taps[:, None], "replicate"), taps[None], "replicate")


def gaussian_taps(sigma: float, truncate: float) -> Float[Tensor, " taps"]:
    """Weights of a sampled Gaussian that sum to 1, float64, ⌊truncate·σ + ½⌋ to either side of the centre."""
    reach = math.floor(truncate * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2) if reach else torch.ones(1, dtype=torch.float64)
    return weights / weights.sum()


def clipped_zoom(images: Tensor, factor: float, axes: tuple[int, int] = (2, 3)) -> Tensor:
    """The centre of each square image, enlarged to the image's size by linear interpolation.

    Like ``scipy.ndimage.zoom(centre, factor, order=1)``, cropped to the centre.

    Args:
        axes: rows and columns; it is quickest where what follows them is long.
    """
    low, weights = _zoom_places(images.shape[axes[0]], factor)
    low, weights = low.to(images.device), weights.to(images.device)
    for axis in axes:
        shape = [1] * images.ndim
        shape[axis] = -1
        first = images.index_select(axis, low)
        images = torch.lerp(first, images.index_select(axis, low + 1), weights.view(shape))
    return images


@lru_cache(maxsize=256)
def _zoom_places(size: int, factor: float) -> tuple[Tensor, Float32[Tensor, " size"]]:
    """For each position of the result, the pixel before it and the weight of the next one."""
    middle = math.ceil(size / factor)
    first = (size - middle) // 2
    enlarged = round(middle * factor)
    trim = (enlarged - size) // 2
    place = torch.arange(trim, trim + size, dtype=torch.float64) * ((middle - 1) / (enlarged - 1))
    low = place.floor().clamp(max=middle - 2)
    return low.long() + first, (place - low).float()


def disk(radius: float, alias: float) -> Float[Tensor, "k k"]:
    """A disk of ones within a grid, smoothed by a small Gaussian of deviation ``alias``; sums to about 1.

    17×17 pixels with a Gaussian of 3×3; beyond radius 8 the grid just covers the disk, with a Gaussian of 5×5.
    """
    from scipy.ndimage import correlate1d

    reach, taps = (8, 1) if radius <= 8 else (int(radius), 2)
    line = np.arange(-reach, reach + 1)
    inside = (line[:, None] ** 2 + line[None] ** 2 <= radius**2).astype(np.float64)
    kernel = inside / inside.sum()
    weights = np.exp(-0.5 * (np.arange(-taps, taps + 1) / alias) ** 2)
    for axis in (0, 1):
        kernel = correlate1d(kernel, weights / weights.sum(), axis=axis, mode="mirror")
    return torch.from_numpy(kernel).float()
