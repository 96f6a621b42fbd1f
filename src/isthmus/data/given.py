"""Images and labels in any of the forms in which people have them: as two tensors, as a split, as data to train on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from pydantic import PrivateAttr
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from isthmus.core.errors import DataError, shown, unknown
from isthmus.data.images import ImageData, Split, as_float, check_images, check_integers, check_labels, fingerprint
from isthmus.data.loading import ImageDataset
from isthmus.data.order import stratified

LARGEST = 8 * 2**30
"""Most bytes of float images that are collected from a dataset or a loader."""

TEST_SHARE = 0.2
"""Share of each class that becomes the test split of data without one."""

_STEP = 1e-3
"""Most by which 255 times a pixel may differ from a whole number."""

PARTS = ("train", "validation", "test")
"""Names of the parts of a dataset."""

_IMAGES = ("image", "images", "img", "pixel_values")
_LABELS = ("label", "labels", "fine_label", "target")
_IN_WORDS = {"train": "training data", "validation": "validation data", "test": "test data"}


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
        return _collected(_in_order(given), which, batched=True)
    if isinstance(given, Dataset) or (hasattr(given, "__getitem__") and hasattr(given, "features")):
        return _collected((given[i] for i in range(len(given))), which, batched=False)
    raise DataError(
        f"Give {which}images and {which}labels, a pair of them, a Dataset or a DataLoader; got {shown(given)} without "
        "labels."
    )


def _in_order(loader: DataLoader[Any]) -> DataLoader[Any]:
    """A loader that shuffles, without the shuffling: the same data then have the same hash every time."""
    sampler, dataset = loader.sampler, loader.dataset
    if not isinstance(sampler, RandomSampler) or sampler.replacement or len(sampler) != len(dataset):  # type: ignore[arg-type]
        return loader
    return DataLoader(
        dataset, loader.batch_size, num_workers=loader.num_workers, collate_fn=loader.collate_fn, timeout=loader.timeout
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


class GivenData(ImageDataset):
    """Data given to :func:`isthmus.train`. A saved recipe holds their hash beside it, and cannot load them."""

    _given: ImageData | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, given: Any) -> GivenData:
        """The data of a recipe, from what :func:`training_data` takes."""
        found = cls()
        found._given = training_data(given)
        return found

    def read(self) -> ImageData:
        """The data that were given.

        Raises:
            DataError: they were not given again.
        """
        if self._given is None:
            raise DataError(
                "The data of this run were given in Python and cannot be loaded from the recipe. Give them again: to "
                "resume, isthmus.train(RECIPE, data=...); to audit, isthmus.audit(isthmus.load(RUN), images, labels), "
                "or name data with --data."
            )
        return self._given


def training_data(given: Any) -> ImageData:
    """A classification dataset from its parts.

    Args:
        given: a mapping or an object with "train" and perhaps "validation" and "test", each in one of the forms of
            :func:`images_and_labels`; or training data alone. Without "test", a fixed 20% of each class become the
            test split, with a note. Or ready :class:`isthmus.data.images.ImageData`.

    Raises:
        DataError: something else, or images without 8 bits a channel.
    """
    if isinstance(given, ImageData):
        return given
    parts = parts_of(given, "train", "Data to train on")
    if "train" not in parts:
        raise DataError(
            f"Data to train on have a part 'train', and perhaps 'validation' and 'test'; got {_listed(parts)}."
        )
    splits = {name: split_of(part, _IN_WORDS[name]) for name, part in parts.items()}
    if "test" in splits:
        return image_data("given data", splits)
    whole = splits["train"]
    check_labels(whole.labels, 1 + max(0, int(whole.labels.max())), "labels of training data")
    kept, held = stratified(whole.labels, TEST_SHARE)
    if not len(held):
        raise DataError(
            f"{len(whole)} images are too few to split off a test part; give one: data={{'train': ..., 'test': ...}}."
        )
    data = image_data("given data", {**splits, "train": whole.select(kept), "test": whole.select(held)})
    return replace(data, note=f"the test split is a fixed {TEST_SHARE:.0%} of each class of the data given")


def parts_of(given: Any, alone: str, what: str) -> dict[str, Any]:
    """The parts of a dataset by the names in :data:`PARTS`.

    Args:
        given: a mapping, or an object whose attributes are the parts; or one part alone.
        alone: the name of a part that is given alone.
        what: the start of messages.

    Raises:
        DataError: a name that is no part.
    """
    if isinstance(given, Mapping):
        parts = dict(given)
    elif not isinstance(given, Dataset | DataLoader) and hasattr(given, "train"):
        parts = {name: part for name in PARTS if (part := getattr(given, name, None)) is not None}
    else:
        parts = {alone: given}
    if other := [name for name in parts if name not in PARTS]:
        raise DataError(f"{what}: {unknown('part', other[0], PARTS)}")
    return parts


def _listed(parts: Iterable[str]) -> str:
    return ", ".join(map(repr, parts)) or "none"


def image_data(name: str, splits: Mapping[str, Split], class_names: tuple[str, ...] | None = None) -> ImageData:
    """A classification dataset from its splits "test" and perhaps "train" and "validation".

    Args:
        class_names: names of the classes; None means the numbers of the labels.

    Raises:
        DataError: a label of another split that no training image has.
    """
    if "train" in splits:
        known = torch.unique(splits["train"].labels)
        for part, split in splits.items():
            if len(other := split.labels[~torch.isin(split.labels, known)]):
                raise DataError(
                    f"{name}: {len(other)} images of the part {part!r} have labels that no training image has, such as "
                    f"{int(other[0])}. All parts must number the classes in the same way."
                )
    test = splits["test"]
    count = len(class_names or ()) or 1 + max(int(split.labels.max()) for split in splits.values())
    # one of each class defines the shape
    shape = Split(test.images[:1].expand(count, -1, -1, -1).clone(), torch.arange(count))
    names = class_names or tuple(str(label) for label in range(count))
    train, validation = splits.get("train", shape), splits.get("validation")
    digest = fingerprint(*(split for split in (train, test, validation) if split is not None))
    return ImageData(name, train, test, names, digest, test_only="train" not in splits, validation=validation)


def split_of(given: Any, what: str) -> Split:
    """A split from what :func:`images_and_labels` takes.

    Raises:
        DataError: something else, or images without 8 bits a channel.
    """
    images, labels = images_and_labels(given)
    check_images(images, f"images of {what}")
    check_integers(labels, f"labels of {what}", len(images))
    levels = images.float() * 255
    pixels = levels.round()
    if (levels - pixels).abs().max() > _STEP:
        raise DataError(
            f"The images of {what} are not of 8 bits a channel. Give bytes, (255 * images).round().to(torch.uint8), "
            "or audit them in Python: isthmus.audit(model, images, labels, threat)."
        )
    return Split(pixels.to(torch.uint8).contiguous(), labels.long())
