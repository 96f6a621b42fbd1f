"""Changes of images that a classifier may expect: normalisations, ranges of pixels, and layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.models.preprocessing import PRESETS

_COLOUR = {"imagenet": "ImageNet", "cifar10": "CIFAR-10"}
_GREY = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
_CAFFE = (123.68, 116.779, 103.939)

Pixels = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Change:
    """A change of images, and what to do if the classifier is far more accurate with it.

    Attributes:
        text: the images after the change, as in "with images ...".
        remedy: one clause that says what to do.
    """

    text: str
    remedy: str
    apply: Pixels = field(repr=False)


def changes(images: Float[Tensor, "n c h w"]) -> Iterator[Change]:
    """Changes of images that a classifier may expect, for as many channels as these have."""
    channels = images.shape[1]
    known = [(name, PRESETS[preset]) for preset, name in {3: _COLOUR, 1: _GREY}.get(channels, {}).items()]
    for name, of in known:
        yield _normalised(f"normalised by {name}'s mean and standard deviation", of.mean, of.std)
    yield _normalised("in [-1, 1]", (0.5,), (0.5,))
    yield _normalised("in [0, 255]", (0.0,), (1 / 255,))
    own = images.mean((0, 2, 3)), images.std((0, 2, 3)).clamp(min=1e-3)
    mean, std = (tuple(round(value, 4) for value in values.tolist()) for values in own)
    yield _normalised("normalised to mean 0 and standard deviation 1", mean, std)
    for name, of in known[:1]:
        yield _undone(f"normalisation by {name}'s mean and standard deviation", of.mean, of.std)
    yield _undone("scaling to [-1, 1]", (0.5,), (0.5,))
    if channels == 3:
        yield Change(
            "in BGR", "the model likely expects channels in this order; put images.flip(1) in front of it", _bgr
        )
        yield Change(
            "in BGR and [0, 255], less Caffe's mean",
            f"the model likely expects them; give it images.flip(1) * 255 less {list(_CAFFE[::-1])} of each channel",
            lambda x: _bgr(255 * x - _column(_CAFFE, x)),
        )
        yield Change(
            "read with channels last",
            "they were likely reshaped; use images.permute(0, 3, 1, 2) of images N×H×W×C",
            lambda x: x.reshape(len(x), *x.shape[2:], channels).permute(0, 3, 1, 2).contiguous(),
        )
    if channels == 1:
        yield Change("inverted", "the model likely expects 1 - images, dark and light exchanged", lambda x: 1 - x)
    if images.shape[2] == images.shape[3]:
        yield Change(
            "transposed",
            "height and width are likely exchanged; give images.transpose(2, 3)",
            lambda x: x.transpose(2, 3).contiguous(),
        )


def _normalised(text: str, mean: Sequence[float], std: Sequence[float]) -> Change:
    written = "mean={}, std={}".format(*(f"{number[0]:.4g}" if len(number) == 1 else number for number in (mean, std)))
    if text == "in [0, 255]":
        written = "mean=0, std=1 / 255"
    return Change(
        text,
        f"normalisation is likely missing; audit isthmus.normalized(model, {written})",
        lambda x: (x - _column(mean, x)) / _column(std, x),
    )


def _undone(what: str, mean: Sequence[float], std: Sequence[float]) -> Change:
    return Change(
        f"on which one {what} is undone",
        "it is likely applied twice; leave it out once, in the model or before it",
        lambda x: x * _column(std, x) + _column(mean, x),
    )


def _column(values: Sequence[float], x: Tensor) -> Tensor:
    return torch.tensor(values, dtype=x.dtype, device=x.device).view(-1, 1, 1)


def _bgr(x: Tensor) -> Tensor:
    return x.flip(1)
