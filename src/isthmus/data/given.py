"""Images and labels in any of the forms in which people have them, as two tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from isthmus.core.errors import DataError, shown
from isthmus.data.images import ImageData, as_float

LARGEST = 8 * 2**30
"""Most bytes of float images that are collected from a dataset or a loader."""

_IMAGES = ("image", "images", "img", "pixel_values")
_LABELS = ("label", "labels", "fine_label", "target")


def tensor(values: Any, what: str) -> Tensor:
    """A dense tensor of numbers, from a tensor, an array or a list.

    Raises:
        DataError: anything else.
    """
    try:
        if isinstance(values, list | tuple) and values and all(isinstance(value, Tensor) for value in values):
            values = torch.stack(list(values))
        given = torch.as_tensor(values).detach()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        hint = " It holds labels, too: leave out the others." if isinstance(values, Dataset | DataLoader) else ""
        raise DataError(f"{what} must be a tensor, an array or a list of numbers; got {_kind(values)}.{hint}") from None
    if given.layout != torch.strided:
        raise DataError(f"{what} must be a dense tensor; got {given.layout}. Convert it with to_dense().")
    if given.is_meta:
        raise DataError(f"{what} are on the device 'meta', which holds no values; give them on a CPU or a GPU.")
    if given.is_complex() or given.is_quantized:
        raise DataError(f"{what} must be real numbers; got {given.dtype}.")
    return given


def _kind(values: object) -> str:
    parts = {type(value).__name__ for value in values} if isinstance(values, list | tuple) else set()
    dtype = getattr(values, "dtype", parts.pop() if len(parts) == 1 else None)
    return type(values).__name__ if dtype is None else f"{type(values).__name__} of {dtype}"


def images_and_labels(images: Any, labels: Any = None, which: str = "") -> tuple[Tensor, Tensor]:
    """Images and labels as tensors; 8-bit images become float32 in [0, 1].

    Args:
        images: with labels, a tensor, an array or a list. Without, a pair of images and labels, a ``Dataset`` or
            ``DataLoader`` of such pairs or of dictionaries (as Hugging Face has them), or a split of isthmus.
        labels: a tensor, an array or a list, or None.
        which: a word before "images" and "labels" in messages, such as "training ".

    Raises:
        DataError: something else, or too many images to hold in memory.
    """
    if labels is None:
        images, labels = _pair(images, which)
    pixels = tensor(images, f"{which}images")
    return as_float(pixels) if pixels.dtype == torch.uint8 else pixels, tensor(labels, f"{which}labels")


def _pair(given: Any, which: str) -> tuple[Any, Any]:
    """Images and labels that one object holds."""
    if isinstance(given, tuple | list) and len(given) == 2:
        return given[0], given[1]
    if all(hasattr(given, name) for name in ("images", "labels", "facts")):  # a split
        return given.images, given.labels
    if isinstance(given, ImageData):
        raise DataError(f"Give a split of {given.name}, such as its `test`.")
    if isinstance(given, DataLoader):
        return _collected(given, which, batched=True)
    if isinstance(given, Dataset) or (hasattr(given, "__getitem__") and hasattr(given, "features")):
        return _collected((given[i] for i in range(len(given))), which, batched=False)
    raise DataError(
        f"Give {which}images and {which}labels, a pair of them, a Dataset or a DataLoader; got {shown(given)} without "
        "labels."
    )


def _collected(parts: Iterable[Any], which: str, batched: bool) -> tuple[Tensor, Tensor]:
    images: list[Tensor] = []
    labels: list[Tensor] = []
    held = 0
    for part in parts:
        image, label = _fields(part)
        pixels, classes = _pixels(image, which), torch.as_tensor(label)
        images.append(pixels if batched else pixels[None])
        labels.append(classes if batched else classes.reshape(1))
        held += pixels.numel() * 4
        if held > LARGEST:
            raise DataError(
                f"The {which}images need more than {LARGEST // 2**30} GiB as floats; give fewer, such as "
                "torch.utils.data.Subset(dataset, range(10_000))."
            )
        if images[-1].shape[1:] != images[0].shape[1:]:
            first, other = tuple(images[0].shape[1:]), tuple(images[-1].shape[1:])
            raise DataError(f"The {which}images have different shapes, {first} and {other}; resize them to one.")
    if not images:
        raise DataError(f"There are no {which}images in what was given.")
    return torch.cat(images), torch.cat(labels)


def _fields(part: Any) -> tuple[Any, Any]:
    """Image and label of an example, or of a batch of them."""
    if isinstance(part, tuple | list) and len(part) >= 2:
        return part[0], part[1]
    if isinstance(part, Mapping):
        image, label = (next((name for name in names if name in part), None) for names in (_IMAGES, _LABELS))
        if image is not None and label is not None:
            return part[image], part[label]
    keys = f" with the keys {', '.join(map(str, part))}" if isinstance(part, Mapping) else ""
    raise DataError(
        f"An example is a pair of image and label, or a dictionary with {_IMAGES[0]!r} and {_LABELS[0]!r}; got "
        f"{type(part).__name__}{keys}."
    )


def _pixels(image: Any, which: str) -> Tensor:
    """An image, or a batch of images, as a tensor; a PIL image as 8-bit C×H×W."""
    if hasattr(image, "getbands"):
        import numpy as np

        pixels = torch.from_numpy(np.array(image))
        return pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)
    return tensor(image, f"{which}images")
