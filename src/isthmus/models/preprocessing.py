"""What a model expects of its images beyond [0, 1]: a size and a normalisation, put in front of it as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.core.errors import ConfigError, ModelError, unknown


@dataclass(frozen=True)
class Preprocessing:
    """Resize, then subtract a mean and divide by a standard deviation, per channel.

    Attributes:
        mean, std: of each channel, or one number for all, for pixels in [0, 1].
        size: height and width that the model takes; images of another size are resized bilinearly, with antialiasing,
            so that gradients reach the pixels. None for images as they are.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not all(value > 0 for value in self.std):
            raise ConfigError(f"The standard deviations of a normalisation are above 0; got {self.std}.")
        if len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std)):
            raise ConfigError(
                f"A normalisation has as many means as standard deviations; got {len(self.mean)} and {len(self.std)}."
            )
        if self.size is not None and min(self.size) < 1:
            raise ConfigError(f"A size is a height and a width of at least 1; got {self.size}.")

    @property
    def changes_nothing(self) -> bool:
        """Whether images pass through unchanged."""
        return self.size is None and set(self.mean) == {0.0} and set(self.std) == {1.0}

    def before(self, model: nn.Module) -> nn.Module:
        """The model with this in front of it; the model itself if it changes nothing.

        Raises:
            ModelError: it is no module.
        """
        if not isinstance(model, nn.Module):
            raise ModelError(f"A model to normalise images for is an nn.Module; got {type(model).__name__}.")
        return model if self.changes_nothing else Preprocessed(model, self).train(model.training)


NONE = Preprocessing()
"""Images as they are."""

PRESETS = {
    "imagenet": Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": Preprocessing((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Preprocessing((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn": Preprocessing((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "mnist": Preprocessing((0.1307,), (0.3081,)),
    "fashion_mnist": Preprocessing((0.2860,), (0.3530,)),
    "clip": Preprocessing((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "-1..1": Preprocessing((0.5,), (0.5,)),
    "0..255": Preprocessing((0.0,), (1 / 255,)),
}
"""Normalisations in common use, by name: channel statistics of training sets, and the ranges [-1, 1] and [0, 255]."""


def preset(name: str) -> Preprocessing:
    """The normalisation of this name in :data:`PRESETS`.

    Raises:
        ConfigError: there is none.
    """
    if name not in PRESETS:
        raise ConfigError(unknown("normalisation", name, PRESETS))
    return PRESETS[name]


class Preprocessed(nn.Module):
    """A classifier of images in [0, 1]: preprocessing, then a model that expects its result.

    Attributes:
        model: the model behind it.
        size: see :class:`Preprocessing`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model, self.size = model, preprocessing.size
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name), dtype=torch.float32)
            self.register_buffer(name, values.reshape(-1, 1, 1))

    def forward(self, images: Float[Tensor, "n c h w"], **options: Any) -> Any:
        """The model's output.

        Raises:
            ModelError: the normalisation is for another number of channels; broadcasting would make more of one.
        """
        channels = max(len(self.mean), len(self.std))
        if channels > 1 and images.shape[1] != channels:
            raise ModelError(
                f"The normalisation has {channels} channels, but the images have {images.shape[1]}. Give one mean and "
                "standard deviation for each channel of the images, or images of as many channels, such as "
                "--data folder:PATH,channels=3."
            )
        if self.size is not None and tuple(images.shape[-2:]) != self.size:
            images = functional.interpolate(images, self.size, mode="bilinear", antialias=True, align_corners=False)
        return self.model((images - self.mean) / self.std, **options)


def normalized(
    model: nn.Module, mean: float | Sequence[float] | str, std: float | Sequence[float] | None = None
) -> nn.Module:
    """A classifier of images in [0, 1], from one that expects normalised images.

    Attacks then work on the pixels themselves, so that ε means what it says.

    Args:
        model: the classifier of normalised images.
        mean: of each channel, or one number for all channels; or the name of a preset, such as "imagenet" or "cifar10"
            (:data:`isthmus.models.preprocessing.PRESETS`).
        std: likewise; left out with a preset.

    Raises:
        ConfigError: an unknown preset, a standard deviation that is not positive, or one of the two without the other.
        ModelError: the model is no module.
    """
    return preprocessing_of(mean=mean, std=std).before(model)


def preprocessing_of(
    mean: float | Sequence[float] | str | None = None,
    std: float | Sequence[float] | None = None,
    size: int | Sequence[int] | None = None,
) -> Preprocessing:
    """Preprocessing from the forms in which people write it; see :func:`normalized`.

    Raises:
        ConfigError: it is incomplete or impossible.
    """
    shape = None if size is None else _size(size)
    if isinstance(mean, str):
        if std is not None:
            raise ConfigError(f"The preset {mean!r} has a standard deviation of its own; leave out the other.")
        of = preset(mean)
        return Preprocessing(of.mean, of.std, shape)
    if (mean is None) != (std is None):
        raise ConfigError("A normalisation needs both mean and standard deviation; one of them is missing.")
    if mean is None or std is None:
        return Preprocessing(size=shape)
    return Preprocessing(_numbers(mean, "mean"), _numbers(std, "standard deviation"), shape)


def _numbers(given: float | Sequence[float], what: str) -> tuple[float, ...]:
    try:
        values = torch.as_tensor(given, dtype=torch.float64).reshape(-1).tolist()
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"A {what} is a number, or one for each channel; got {given!r}.") from None
    if not values or not all(abs(value) < float("inf") for value in values):
        raise ConfigError(f"A {what} is a finite number, or one for each channel; got {given!r}.")
    return tuple(values)


def _size(given: int | Sequence[int]) -> tuple[int, int]:
    sides = (given, given) if isinstance(given, int) else tuple(given)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ConfigError(f"A size is one number of pixels, or a height and a width; got {given!r}.")
    return sides
