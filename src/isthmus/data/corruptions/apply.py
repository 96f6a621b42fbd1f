"""Corrupt a batch of bytes by name and severity, with one key per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from isthmus.core.errors import ConfigError, DataError, unknown
from isthmus.core.randomness import fold
from isthmus.data.corruptions import blurs, digital, noise, weather
from isthmus.data.corruptions.filters import quantised
from isthmus.data.corruptions.parameters import PLASMA, SIZES, TABLES, Severity
from isthmus.data.images import as_float
from isthmus.metrics.corruption import CORRUPTIONS, SEVERITIES

Operation = Callable[[Tensor, Severity, Tensor], Tensor]

SMALLEST = 24
"""Smallest image side in pixels: kernels are up to 21 pixels wide, so that smaller images become unrecognisable."""

_AT_ONCE = 2**20  # numbers per part of a batch, so that a part fits into the cache
_PLAIN: dict[str, Operation] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blurs.defocus_blur,
    "glass_blur": blurs.glass_blur,
    "motion_blur": blurs.motion_blur,
    "zoom_blur": blurs.zoom_blur,
    "snow": weather.snow,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}


def parameters_for(shape: Sequence[int], named: str | None = None) -> str:
    """The published set whose parameters apply to images of a shape: "cifar10_c", "imagenet_c" or "mnist_c".

    Args:
        shape: channels, height and width.
        named: one of these sets, for images of another size; None chooses by size.

    Raises:
        ConfigError: the set is unknown.
        DataError: images that are not square, do not have 1 or 3 channels, are too small, or need ``named``.
    """
    channels, height, width = shape
    given = f"images of {channels}×{height}×{width} (channels, height, width)"
    if named is not None and named not in TABLES:
        raise ConfigError(unknown("set of corruption parameters", named, TABLES))
    if channels not in (1, 3) or height != width:
        raise DataError(f"Corruptions need square images with 1 or 3 channels; got {given}.")
    if height < SMALLEST or (named is None and height not in SIZES):
        sizes = ", ".join(f"{size}×{size}" for size in SIZES)
        raise DataError(
            f"Corruptions are published for images of {sizes} pixels; got {given}. Resize them, or, from "
            f"{SMALLEST}×{SMALLEST} pixels on, choose the parameters: `parameters` is one of {', '.join(TABLES)}."
        )
    return named or SIZES[height]


def corrupt(
    images: UInt8[Tensor, "n c h w"],
    corruption: str,
    severity: int,
    keys: Int64[Tensor, " n"],
    parameters: str | None = None,
    frost: Sequence[UInt8[Tensor, "c height width"]] | None = None,
) -> UInt8[Tensor, "n c h w"]:
    """Images under one corruption at one severity, as bytes, on the images' device.

    The published sets are bytes, too, and rounded down. The result depends only on the image, its key, corruption and
    severity. Between devices, values at a rounding boundary may differ by one level.

    Args:
        images: N×C×H×W bytes with 1 or 3 channels.
        corruption: one of :data:`isthmus.metrics.CORRUPTIONS`.
        severity: 1 to 5.
        keys: one per image (:func:`isthmus.core.randomness.example_keys`), on the images' device.
        parameters: name of the published set; see :func:`parameters_for`.
        frost: photographs (:func:`isthmus.data.corruptions.weather.load_frost`), which "frost" needs.

    Raises:
        ConfigError: no such corruption, severity or set of parameters.
        DataError: images of a wrong type, size or number of channels, a wrong number of keys, or frost without
            photographs that are larger than the images.
    """
    if corruption not in CORRUPTIONS:
        raise ConfigError(unknown("corruption", corruption, CORRUPTIONS))
    if severity not in SEVERITIES:
        raise ConfigError(f"A severity is a whole number from 1 to 5; got {severity!r}.")
    if images.dtype != torch.uint8 or images.ndim != 4 or len(keys) != len(images):
        raise DataError(
            f"Corruptions take N×C×H×W bytes (torch.uint8) and N keys; got {images.dtype} of shape "
            f"{tuple(images.shape)} and {len(keys)} keys."
        )
    name = parameters_for(images.shape[1:], parameters)
    operation = _operation(corruption, name, images.shape[1:], frost)
    numbers = TABLES[name][corruption][severity - 1]
    folded = fold(keys, "corruptions/image", corruption, severity)
    done = torch.empty_like(images)
    side = _map_side(name, images.shape[-1]) if corruption == "fog" else 0
    count = max(1, _AT_ONCE // max(images.shape[1:].numel(), side**2))
    for first in range(0, len(images), count):
        rows = slice(first, first + count)
        levels = quantised(operation(as_float(images[rows]), numbers, folded[rows])).mul_(255.0)
        done[rows] = levels.round_().byte()
    return done


def _operation(corruption: str, name: str, shape: Sequence[int], frost: Sequence[Tensor] | None) -> Operation:
    channels, _, size = shape
    if corruption == "fog":
        return partial(weather.fog, size=_map_side(name, size))
    if corruption == "elastic_transform":
        return partial(digital.elastic_transform, black=name == "mnist_c")
    if corruption != "frost":
        return _PLAIN[corruption]
    if not frost:
        raise DataError(f"Frost needs photographs of frost. {weather.GET}")
    if any(len(photograph) != channels or min(photograph.shape[1:]) <= size for photograph in frost):
        raise DataError(f"Photographs of frost must have {channels} channels and more than {size}×{size} pixels.")
    return partial(weather.frost, photographs=frost)


def _map_side(name: str, size: int) -> int:
    """Side of the height map of fog: the published side, or the next power of two that covers the image."""
    side = PLASMA[name]
    while side < size:
        side *= 2
    return side
