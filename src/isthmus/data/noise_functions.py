"""Noise functions X' = f(X, U), which destroy irrelevant information (Fischer 2020, Appendix C.3.1).

Each maps images in [0, 1] (or other numbers, if so documented), N×C×H×W, to images of the same shape and dtype. Random
numbers come from the generator, which must be on the images' device.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

Images = Float[Tensor, "n c h w"]


def gaussian_noise(images: Float[Tensor, "n ..."], std: float, generator: torch.Generator) -> Float[Tensor, "n ..."]:
    """x + N(0, std²) for numbers of any kind, not clipped to [0, 1]: the Gaussian channel, of known capacity.

    Raises:
        ValueError: a negative std.
    """
    if not std >= 0:
        raise ValueError(f"std must not be negative; got {std}")
    return images + std * torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)


def mask(images: Images, share: float, generator: torch.Generator, size: int = 1) -> Images:
    """Blacken each ``size``×``size`` square of a grid with probability ``share``, in all channels: pixels, or patches.

    Raises:
        ValueError: a share outside [0, 1], or a size below 1.
    """
    if not 0 <= share <= 1 or size < 1:
        raise ValueError(f"share must be in [0, 1] and size 1 or more; got {share} and {size}")
    n, _, height, width = images.shape
    grid = (n, 1, math.ceil(height / size), math.ceil(width / size))
    kept = torch.rand(grid, generator=generator, device=images.device) >= share
    pixels = kept.repeat_interleave(size, -2).repeat_interleave(size, -1)[..., :height, :width]
    return torch.where(pixels, images, torch.zeros_like(images))


def blur(images: Images, sigma: float) -> Images:
    """Low-pass by a Gaussian of ``sigma`` pixels, truncated at 3σ, borders repeated: destroys high frequencies.

    Raises:
        ValueError: a sigma that is not positive.
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be positive; got {sigma}")
    reach = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma).square())
    kernel = kernel / kernel.sum()
    rows = functional.pad(images.flatten(0, 1).unsqueeze(1), (reach,) * 4, mode="replicate")
    blurred = functional.conv2d(functional.conv2d(rows, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return blurred.view(images.shape)


def shift(images: Images, most: int, generator: torch.Generator) -> Images:
    """Move each image by up to ``most`` pixels in both directions, uniformly, filled with black: destroys positions.

    Raises:
        ValueError: a negative distance.
    """
    if most < 0:
        raise ValueError(f"the largest shift must not be negative; got {most}")
    n, _, height, width = images.shape
    down, right = torch.randint(2 * most + 1, (2, n, 1), generator=generator, device=images.device)
    padded = functional.pad(images, (most,) * 4)
    rows = (down + torch.arange(height, device=images.device)).view(n, 1, height, 1)
    columns = (right + torch.arange(width, device=images.device)).view(n, 1, 1, width)
    every = torch.arange(n, device=images.device).view(n, 1, 1, 1)
    channels = torch.arange(images.shape[1], device=images.device).view(1, -1, 1, 1)
    return padded[every, channels, rows, columns]


def same_class(labels: Int[Tensor, " n"], generator: torch.Generator) -> Int[Tensor, " n"]:
    """The oracle: for each example, the index of a random example of its class, possibly itself.

    Pairs (x, x[index]) share only the class, so a code with the shared information has the class: ln C nats for C
    equally frequent classes, learned without a label in the loss (Fischer 2020, Appendix C.3.1).
    """
    order = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels)
    first = counts.cumsum(0) - counts
    drawn = torch.rand(len(labels), generator=generator, device=labels.device, dtype=torch.float64)
    within = (drawn * counts[labels]).long()
    return order[first[labels] + within]
