"""The operations of AutoAugment, the strength of each level, and drawing them by keys.

Levels m run from 0 to 9. Sources: Cubuk et al. 2019 (https://arxiv.org/abs/1805.09501), table 6, and
the integers of Google's released code: for CIFAR-10 tensorflow/models, research/autoaugment/augmentation_transforms.py,
and for ImageNet tensorflow/tpu, models/official/efficientnet/autoaugment.py, where the levels of posterizing and
solarizing are reversed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from isthmus.core.errors import ConfigError, unknown
from isthmus.core.randomness import uniform
from isthmus.data.autoaugment.policies import POLICIES, SubPolicy

LEVELS = 10
VARIANTS = 1024
"""With each operation, a number below this is drawn. The lower half reverses rotations, shears and translations; a
cutout uses it as its position on a grid of 32×32."""

FIXED = ("invert", "posterize", "solarize", "brightness", "posterize_to", "solarize_from")
"""A fixed map of bytes. The last two are those of ImageNet, stronger at a lower level."""
BYTEWISE = (*FIXED, "autocontrast", "equalize", "contrast")
"""A map of the bytes of each channel, which may depend on the image."""
MOVING = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
KINDS = ("none", *BYTEWISE, "color", "sharpness", *MOVING, "cutout")
KIND = {name: number for number, name in enumerate(KINDS)}


STRENGTHS: dict[str, Callable[[int], Any]] = {
    "posterize": lambda m: 4 - 4 * m // 10,  # bits of each byte that are kept, 4 − ⌊.4 m⌋
    "posterize_to": lambda m: 4 * m // 10,  # the same for ImageNet, ⌊.4 m⌋
    "solarize": lambda m: 256 - 256 * m // 10,  # bytes from this on are inverted, 256 − ⌊25.6 m⌋
    "solarize_from": lambda m: 256 * m // 10,  # the same for ImageNet, ⌊25.6 m⌋
    "enhance": lambda m: m * 1.8 / 10 + 0.1,  # factor of color, contrast, brightness and sharpness; 1 is the identity
    "rotate": lambda m: 3 * m,  # degrees
    "shear": lambda m: m * 0.3 / 10,  # pixels along for each pixel across
    "translate": lambda m: m,  # pixels, for any image size
    "cutout": lambda m: 2 * m,  # side of the square, in pixels
}
"""Strength of an operation at level m. Rotations, shears and translations go to either side."""


class Operations(NamedTuple):
    """The operations of n images in the two stages of a sub-policy.

    Attributes:
        kinds: int64, n×2, indices into :data:`KINDS`.
        levels: int64, n×2, 0 to 9.
        variants: int64, n×2, 0 to 1023; see :data:`VARIANTS`.
    """

    kinds: Int64[Tensor, "n 2"]
    levels: Int64[Tensor, "n 2"]
    variants: Int64[Tensor, "n 2"]

    def at(self, indices: Int64[Tensor, " m"]) -> Operations:
        """The operations of some images, in this order."""
        return Operations(*(part.index_select(0, indices) for part in self))


def draw(keys: Int64[Tensor, " n"], policy: str) -> Operations:
    """Draw a sub-policy for each key, which of its operations are applied, and their variants.

    Args:
        policy: "published", "released" or "imagenet", a key of :data:`isthmus.data.autoaugment.policies.POLICIES`.

    Raises:
        ConfigError: there is no such policy.
    """
    if policy not in POLICIES:
        raise ConfigError(unknown("AutoAugment policy", policy, POLICIES))
    kinds, probabilities, levels = _columns(POLICIES[policy])
    numbers = uniform(keys, (5,)).double()
    chosen = (numbers[:, 0] * len(kinds)).long()
    happens = numbers[:, 1:3] < probabilities[chosen]
    return Operations(kinds[chosen] * happens, levels[chosen], (numbers[:, 3:5] * VARIANTS).long())


def _columns(
    policy: tuple[SubPolicy, ...],
) -> tuple[Int64[Tensor, "s 2"], Float64[Tensor, "s 2"], Int64[Tensor, "s 2"]]:
    kinds = torch.tensor([[KIND[name] for name, _, _ in pair] for pair in policy])
    probabilities = torch.tensor([[probability for _, probability, _ in pair] for pair in policy], dtype=torch.float64)
    return kinds, probabilities, torch.tensor([[level for _, _, level in pair] for pair in policy])
