"""Digital corruptions: brightness, contrast, pixelation, JPEG compression and the elastic transform."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import grid_sample

from isthmus.core.randomness import fold, uniform
from isthmus.data.corruptions.filters import gaussian_taps
from isthmus.data.corruptions.parameters import Images, Keys, Severity


def elastic_transform(images: Images, severity: Severity, keys: Keys, black: bool) -> Images:
    """A random affine map, then smooth random shifts (Simard, Steinkraus & Platt 2003).

    ``severity`` is (α, σ, maximal shift of three points), in sides of the image. The affine map moves three points
    around the centre, with the image reflected about its last pixels. Shifts are uniform noise in [−α, α], smoothed by
    a Gaussian of deviation σ, with the image reflected about its edges. Both interpolate linearly.

    Args:
        black: use black outside the image instead, as MNIST-C does.
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
    """The affine map from a point (x, y) of the result to the point of the image."""
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
    """Gaussian smoothing of a line as a matrix, truncated at 3σ and reflected repeatedly about the ends."""
    taps = gaussian_taps(sigma, 3.0)
    reach = len(taps) // 2
    places = (torch.arange(size)[:, None] + torch.arange(-reach, reach + 1)) % (2 * size)
    places = torch.where(places < size, places, 2 * size - 1 - places)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, places, taps.expand(size, -1).contiguous())


def _sampled(images: Images, places: Float64[Tensor, "n h w 2"], beyond: str, about_pixels: bool) -> Images:
    """The images at points (x, y), in pixels, linearly interpolated."""
    size = images.shape[-1]
    grid = places * (2 / (size - 1)) - 1 if about_pixels else (places * 2 + 1) / size - 1
    return grid_sample(images, grid.float(), padding_mode=beyond, align_corners=about_pixels)


def brightness(images: Images, severity: Severity, keys: Keys) -> Images:
    """Add ``severity[0]`` to the value of each pixel's hue, saturation and value.

    Value is the largest channel. Scaling all channels alike keeps hue and saturation; black becomes grey.
    """
    value = images.amax(1, keepdim=True)
    brighter = (value + severity[0]).clamp_(max=1.0)
    return torch.where(value > 0, images * (brighter / value.clamp(min=1e-9)), brighter)


def contrast(images: Images, severity: Severity, keys: Keys) -> Images:
    """Scale the distance of all values to their channel's mean by ``severity[0]``."""
    means = images.double().mean((2, 3), keepdim=True).float()
    return torch.lerp(means, images, severity[0])


def pixelate(images: Images, severity: Severity, keys: Keys) -> Images:
    """Scale down by ``severity[0]`` and up again, both with Pillow's box filter, exact to the byte."""
    small = tuple(int(size * severity[0]) for size in images.shape[2:])
    pixels = (images * 255.0).round_().double()
    for height, width in (small, tuple(images.shape[2:])):
        pixels = _resized(_resized(pixels, width, 3), height, 2)  # Pillow starts with the rows
    return pixels.float() / 255.0


_FRACTION = 2.0**22


def _resized(pixels: Float64[Tensor, "n c h w"], size: int, axis: int) -> Float64[Tensor, "n c _ _"]:
    """Resample one axis in Pillow's fixed-point numbers, which float64 holds exactly."""
    weights = _box(pixels.shape[axis], size, pixels.device)
    sums = torch.matmul(weights, pixels) if axis == 2 else torch.matmul(pixels, weights.t())
    return sums.add_(_FRACTION / 2).div_(_FRACTION).floor_()


@lru_cache(maxsize=64)
def _box(given: int, wanted: int, device: torch.device) -> Float64[Tensor, "wanted given"]:
    """Weight of each input pixel in each output pixel: equal for those whose centre lies in the output pixel."""
    scale = given / wanted
    centres = (torch.arange(wanted, dtype=torch.float64) + 0.5)[:, None] * scale
    away = (torch.arange(given, dtype=torch.float64) + 0.5 - centres) / max(scale, 1.0)
    inside = ((away > -0.5) & (away <= 0.5)).double()
    return (inside / inside.sum(1, keepdim=True) * _FRACTION + 0.5).floor().to(device)


def jpeg_compression(images: Images, severity: Severity, keys: Keys) -> Images:
    """Compress and decompress each image with Pillow, at the quality ``severity[0]``."""
    from PIL import Image

    pixels = (images * 255.0).round_().byte().permute(0, 2, 3, 1).cpu().numpy()
    done = np.empty_like(pixels)
    for index, image in enumerate(pixels):
        file = BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
            file, "JPEG", quality=int(severity[0])
        )
        with Image.open(file) as compressed:
            done[index] = np.asarray(compressed).reshape(image.shape)
    return torch.from_numpy(done).permute(0, 3, 1, 2).to(images.device).float().div_(255.0)
