"""Brightness, contrast, pixelation and JPEG compression."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from isthmus.data.corruptions.parameters import Severity

Images = Float[Tensor, "n c h w"]
Keys = Int64[Tensor, " n"]


def brightness(images: Images, severity: Severity, keys: Keys) -> Images:
    """Add ``severity[0]`` to the value of each pixel's hue, saturation and value.

    Value is the greatest channel; hue and saturation stay where all channels are scaled alike, and black becomes grey.
    """
    value = images.amax(1, keepdim=True)
    brighter = (value + severity[0]).clamp_(max=1.0)
    return torch.where(value > 0, images * (brighter / value.clamp(min=1e-9)), brighter)


def contrast(images: Images, severity: Severity, keys: Keys) -> Images:
    """Bring all values nearer to their channel's mean, to ``severity[0]`` of their distance."""
    means = images.double().mean((2, 3), keepdim=True).float()
    return torch.lerp(means, images, severity[0])


def pixelate(images: Images, severity: Severity, keys: Keys) -> Images:
    """Scale down to ``severity[0]`` of the pixels a side, and up again, both by Pillow's box filter, to its bytes."""
    small = tuple(int(size * severity[0]) for size in images.shape[2:])
    pixels = (images * 255.0).round_().double()
    for height, width in (small, tuple(images.shape[2:])):
        pixels = _resized(_resized(pixels, width, 3), height, 2)  # Pillow begins with the rows
    return pixels.float() / 255.0


_FRACTION = 2.0**22


def _resized(pixels: Float64[Tensor, "n c h w"], size: int, axis: int) -> Float64[Tensor, "n c _ _"]:
    """One axis resampled in Pillow's fixed-point numbers, which float64 holds exactly."""
    weights = _box(pixels.shape[axis], size, pixels.device)
    sums = torch.matmul(weights, pixels) if axis == 2 else torch.matmul(pixels, weights.t())
    return sums.add_(_FRACTION / 2).div_(_FRACTION).floor_()


@lru_cache(maxsize=64)
def _box(given: int, wanted: int, device: torch.device) -> Float64[Tensor, "wanted given"]:
    """Weights of each given pixel in each wanted one: equal where its middle lies in the wanted one's stretch."""
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
