"""Snow, fog and frost: layers that are added to an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from isthmus.core.randomness import fold, normal, uniform
from isthmus.data.corruptions import filters, motion
from isthmus.data.corruptions.parameters import Severity
from isthmus.data.corruptions.plasma import plasma

Images = Float[Tensor, "n c h w"]
Keys = Int64[Tensor, " n"]

_LUMA = (0.299, 0.587, 0.114)


def snow(images: Images, severity: Severity, keys: Keys) -> Images:
    """Whiten the image and add flakes twice, the second time upside down.

    ``severity`` is (mean and deviation of the flakes' normal noise, how far it is enlarged, the threshold below which
    there is none, radius and σ of their motion blur, how much of the image's own colours stays).
    """
    mean, deviation, zoom, threshold, radius, sigma, kept = severity
    flakes = mean + deviation * normal(keys, (1, *images.shape[2:]))
    flakes = filters.clipped_zoom(flakes, zoom)
    flakes = filters.quantised(torch.where(flakes < threshold, 0.0, flakes))
    flakes = motion.blur(flakes, radius, sigma, uniform(fold(keys, "snow/angle"), ()) * 90.0 - 135.0)
    whitened = torch.maximum(images, _grey(images) * 1.5 + 0.5)
    return torch.lerp(whitened, images, kept) + flakes + flakes.rot90(2, (2, 3))


def _grey(images: Images) -> Float[Tensor, "n 1 h w"]:
    if images.shape[1] == 1:
        return images
    return (images * torch.tensor(_LUMA, device=images.device).view(-1, 1, 1)).sum(1, keepdim=True)


def fog(images: Images, severity: Severity, keys: Keys, size: int) -> Images:
    """Add a cloudy height map, and darken so that the brightest value keeps its place.

    ``severity`` is (thickness, decay of the map's roughness); see :func:`isthmus.data.corruptions.plasma.plasma`.

    Args:
        size: side of the map, whose upper left part is taken.
    """
    thickness, decay = severity
    height, width = images.shape[2:]
    clouds = plasma(keys, size, decay)[:, None, :height, :width]
    brightest = images.amax((1, 2, 3), keepdim=True)
    return (images + thickness * clouds) * (brightest / (brightest + thickness))


def frost(
    images: Images, severity: Severity, keys: Keys, photographs: Sequence[UInt8[Tensor, "c height width"]]
) -> Images:
    """Add a random part of a random photograph of frost; ``severity`` are the weights of image and photograph.

    Args:
        photographs: of as many channels as the images, and larger.
    """
    own, added = severity
    height, width = images.shape[2:]
    drawn = uniform(keys, (3,)).double().cpu()
    parts = []
    for choice, down, across in drawn.tolist():
        photograph = photographs[int(choice * len(photographs))]
        top, left = int(down * (photograph.shape[1] - height)), int(across * (photograph.shape[2] - width))
        parts.append(photograph[:, top : top + height, left : left + width])
    return own * images + added * torch.stack(parts).to(images.device).float().div_(255.0)
