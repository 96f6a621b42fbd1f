"""Building blocks of networks: input normalisation, named chains of layers, initialisers and convolutions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.errors import ConfigError

_HALVED_TWICE = 4  # pixels


class Normalize(nn.Module):
    """(images − mean) / std per channel; inside the model, so that attacks and callers stay in [0, 1].

    The statistics are buffers: they are saved with the weights and move with the module.

    Args:
        mean, std: one number per channel, or a single one for all.

    Raises:
        ValueError: lengths that differ, or a std that is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(s > 0 for s in std):
            raise ValueError(f"give as many means as positive stds; got mean {mean} and std {std}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    @classmethod
    def symmetric(cls) -> Normalize:
        """From [0, 1] to [−1, 1]: 2x − 1."""
        return cls([0.5], [0.5])

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Normalised images, in the dtype of the given ones."""
        return (images - self.mean.to(images.dtype)) / self.std.to(images.dtype)


class Chain(nn.Sequential):
    """Named modules in sequence, from images to ``features`` numbers."""

    def __init__(self, features: int, **parts: nn.Module) -> None:
        super().__init__(OrderedDict(parts))
        self.features = features


def check_halved_twice(name: str, shape: tuple[int, int, int]) -> None:
    """Check that images are large enough for a network that halves their height and width twice, rounding down.

    Raises:
        ConfigError: they are not.
    """
    if min(shape[1:]) < _HALVED_TWICE:
        raise ConfigError(
            f"{name} halves height and width twice; images of {shape[1]}×{shape[2]} are too small. "
            f"Give images of at least {_HALVED_TWICE}×{_HALVED_TWICE} pixels, or use mlp."
        )


def _start(module: nn.Module, weights: Callable[[Tensor], object], kinds: Any = (nn.Linear, nn.Conv2d)) -> None:
    """Initialise the weights of linear and convolutional layers by a function; zero biases."""
    for layer in module.modules():
        if isinstance(layer, kinds):
            weights(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def glorot_(module: nn.Module) -> None:
    """Glorot-uniform weights ±√(6/(fan_in + fan_out)) and zero biases: the initialisation of the papers' frameworks."""
    _start(module, nn.init.xavier_uniform_)


def he_(module: nn.Module) -> None:
    """He-normal weights, std √(2/fan_in), and zero biases: ReLU layers preserve the scale of activations."""
    _start(module, lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"))


@torch.no_grad()
def unit_norm_(module: nn.Module) -> None:
    """Filters from a normal truncated at two standard deviations, each scaled to ℓ2 norm 1; zero biases.

    The initialisation of CleverHans's tutorials, independent of the number of inputs.
    """

    def filters(weight: Tensor) -> None:
        nn.init.trunc_normal_(weight, a=-2.0, b=2.0)
        flat = weight.view(len(weight), -1)
        flat.div_(flat.norm(dim=1, keepdim=True))

    _start(module, filters)


@torch.no_grad()
def delta_orthogonal_(module: nn.Module) -> None:
    """Convolutions with an orthogonal matrix at the centre of the kernel and zeros around it; zero biases.

    Such a layer preserves norms unless it reduces channels, at any depth (Xiao et al. 2018,
    https://arxiv.org/abs/1806.05393, algorithm 2, at gain 1). For kernels of odd size.
    """

    def centred(weight: Tensor) -> None:
        row, column = (size // 2 for size in weight.shape[2:])
        nn.init.zeros_(weight)
        nn.init.orthogonal_(weight[:, :, row, column])

    _start(module, centred, nn.Conv2d)


def conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 1×1 convolution without bias, with stride ``stride``."""
    return nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)


def conv3x3(inputs: int, outputs: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A 3×3 convolution that keeps height and width (or divides them by ``stride``)."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=bias)
