"""The parameters of each corruption at its five severities, for three image sizes.

Sources: the scripts that made the published sets, ``make_cifar_c.py`` and ``make_imagenet_c.py`` of
hendrycks/robustness, and ``corruptions.py`` of google-research/mnist-c (Mu & Gilmer 2019). The
docstring of each operation explains its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from jaxtyping import Float, Int64
from torch import Tensor

Images = Float[Tensor, "n c h w"]
Keys = Int64[Tensor, " n"]
Severity = tuple[float, ...]
Table = Mapping[str, tuple[Severity, ...]]
"""Severities 1 to 5 of each corruption."""


def _alone(*values: float) -> tuple[Severity, ...]:
    return tuple((value,) for value in values)


CIFAR10_C: Table = MappingProxyType(
    {
        "gaussian_noise": _alone(0.04, 0.06, 0.08, 0.09, 0.10),
        "shot_noise": _alone(500, 250, 100, 75, 50),
        "impulse_noise": _alone(0.01, 0.02, 0.03, 0.05, 0.07),
        "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        "snow": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        "brightness": _alone(0.05, 0.1, 0.15, 0.2, 0.3),
        "contrast": _alone(0.75, 0.5, 0.4, 0.3, 0.15),
        "elastic_transform": (
            (0, 0, 0.08),
            (0.05, 0.2, 0.07),
            (0.08, 0.06, 0.06),
            (0.1, 0.04, 0.05),
            (0.1, 0.03, 0.03),
        ),
        "pixelate": _alone(0.95, 0.9, 0.85, 0.75, 0.65),
        "jpeg_compression": _alone(80, 65, 58, 50, 40),
    }
)
_ELASTIC = ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
IMAGENET_C: Table = MappingProxyType(
    {
        "gaussian_noise": _alone(0.08, 0.12, 0.18, 0.26, 0.38),
        "shot_noise": _alone(60, 25, 12, 5, 3),
        "impulse_noise": _alone(0.03, 0.06, 0.09, 0.17, 0.27),
        "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        "snow": (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        "brightness": _alone(0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": _alone(0.4, 0.3, 0.2, 0.1, 0.05),
        # the script multiplies by 244 instead of the images' 224 pixels; these are fractions of 224
        "elastic_transform": tuple((244 / 224 * a, 244 / 224 * b, 244 / 224 * c) for a, b, c in _ELASTIC),
        "pixelate": _alone(0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg_compression": _alone(25, 18, 15, 10, 7),
    }
)
MNIST_C: Table = MappingProxyType(
    {
        **IMAGENET_C,
        "elastic_transform": _ELASTIC,
    }
)
"""The script of MNIST-C has the numbers of ImageNet-C except for the elastic transform, which uses 28 pixels."""

TABLES: Mapping[str, Table] = MappingProxyType({"cifar10_c": CIFAR10_C, "imagenet_c": IMAGENET_C, "mnist_c": MNIST_C})
"""Parameters by the name of the published set."""
SIZES: Mapping[int, str] = MappingProxyType({28: "mnist_c", 32: "cifar10_c", 224: "imagenet_c"})
"""The set whose parameters apply, by image side in pixels."""
PLASMA: Mapping[str, int] = MappingProxyType({"mnist_c": 256, "cifar10_c": 32, "imagenet_c": 256})
"""Side of the height map of fog."""
