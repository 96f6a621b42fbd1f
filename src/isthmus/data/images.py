"""Labelled images in memory or in files, and the checks of images and labels of any origin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Float, Int, Int64, UInt8
from torch import Tensor

from isthmus.core.errors import DataError
from isthmus.core.files import sha256

if TYPE_CHECKING:
    import numpy as np

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, in [0, 1]."""


class Examples(Protocol):
    """The labelled images of one split: in memory (:class:`Split`), or decoded when needed from files
    (:class:`isthmus.data.on_demand.FileSplit`) or rows of a table (:class:`isthmus.data.parquet.RowSplit`)."""

    @property
    def images(self) -> UInt8[Tensor, "n c h w"]:
        """All images at once; for files, :meth:`select` as many as fit into memory first."""

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """The index of each image's class."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""

    def __len__(self) -> int: ...

    def select(self, indices: Int64[Tensor, " m"]) -> Examples:
        """The examples at these positions, in this order; reads no image."""

    def labelled(self, labels: Int64[Tensor, " n"]) -> Examples:
        """The same images with other labels."""

    def prepared(self, index: int, part: Sequence[float] | None) -> np.ndarray:
        """One image as height × width × channels bytes: whole, or the random part given by numbers of
        :func:`isthmus.data.crops.draw_parts`."""

    def facts(self) -> Iterator[Any]:
        """Bytes that determine the images and labels, for a fingerprint."""


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """The images of one split as bytes, with their labels.

    Attributes:
        images: uint8, N×C×H×W, 0 is black and 255 is full intensity.
        labels: int64, N, the index of each image's class.

    Raises:
        DataError: a wrong type or shape, lengths that differ, or no image at all.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise DataError(f"Images of a split are uint8 of shape N×C×H×W; got {_described(self.images)}.")
        if self.labels.dtype != torch.int64 or self.labels.ndim != 1:
            raise DataError(f"Labels of a split are int64 of shape N; got {_described(self.labels)}.")
        if len(self.images) != len(self.labels):
            raise DataError(f"There are {len(self.images)} images but {len(self.labels)} labels.")
        if self.images.numel() == 0:
            raise DataError(f"A split needs at least one image; got {_described(self.images)}.")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self)} images of {'×'.join(map(str, self.images.shape[1:]))})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def select(self, indices: Int64[Tensor, " m"]) -> Split:
        """The examples at these positions, in this order."""
        return Split(self.images.index_select(0, indices), self.labels.index_select(0, indices))

    def labelled(self, labels: Int64[Tensor, " n"]) -> Split:
        """The same images with other labels."""
        return Split(self.images, labels)

    def prepared(self, index: int, part: Sequence[float] | None) -> np.ndarray:
        """One image as height × width × channels bytes, or a random part of it (of 1 or 3 channels)."""
        from PIL import Image

        from isthmus.data.crops import resized_crop

        pixels = self.images[index].permute(1, 2, 0).contiguous().numpy()
        if part is None:
            return pixels
        image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
        return resized_crop(image, part, self.shape[1:])

    def facts(self) -> Iterator[Any]:
        """Shapes and bytes of the two tensors."""
        for tensor in (self.images, self.labels):
            yield repr(tuple(tensor.shape)).encode()
            yield tensor.contiguous().numpy()


@dataclass(frozen=True, eq=False)
class ImageData:
    """A classification dataset.

    The test split may lack a class (small test sets), the training split may not: nothing could be learned about it,
    and the backward encoder b(z|y) of a CEB model would stay random there.

    Attributes:
        name: the dataset's name in reports.
        classes: names of the classes; a label is a position in this tuple.
        fingerprint: SHA-256 (hex) over the shapes and bytes of the tensors of all splits, or over names and sizes of
            files. :meth:`of` computes it.
        statistics: mean and standard deviation of each channel; None computes them from the train split.
        note: what a reader of results on these data must know, such as differences from the published ones; "" for
            nothing.
        test_only: there are only test images; ``train`` then has one of each class, which only defines the shape.
        validation: a split of its own for early stopping; None for data without one.

    Raises:
        DataError: splits of different image shapes, fewer than two classes, a label out of range, or a class
            without a training example.
    """

    name: str
    train: Examples
    test: Examples
    classes: tuple[str, ...]
    fingerprint: str
    statistics: Statistics | None = None
    note: str = ""
    test_only: bool = False
    validation: Examples | None = None

    def __post_init__(self) -> None:
        if self.train.shape != self.test.shape:
            shapes = [split.shape for split in (self.train, self.test)]
            raise DataError(f"{self.name}: training images are {shapes[0]} but test images are {shapes[1]} (C, H, W).")
        if self.num_classes < 2:
            raise DataError(f"{self.name}: a classifier needs at least two classes; there is only {self.classes}.")
        if self.validation is not None:
            if self.validation.shape != self.train.shape:
                shapes = [split.shape for split in (self.train, self.validation)]
                raise DataError(
                    f"{self.name}: training images are {shapes[0]} but validation images are {shapes[1]} (C, H, W)."
                )
            check_labels(self.validation.labels, self.num_classes, what=f"{self.name}: validation.labels")
        check_labels(self.train.labels, self.num_classes, what=f"{self.name}: train.labels")
        check_labels(self.test.labels, self.num_classes, what=f"{self.name}: test.labels")
        counts = self.train.labels.bincount(minlength=self.num_classes).tolist()
        missing = [name for name, count in zip(self.classes, counts, strict=True) if count == 0]
        if missing:
            raise DataError(
                f"{self.name}: no training example for {len(missing)} of {self.num_classes} classes "
                f"({', '.join(missing[:5])}); give some, or leave the class out."
            )

    @classmethod
    def of(
        cls,
        name: str,
        train: Examples,
        test: Examples,
        classes: tuple[str, ...],
        statistics: Statistics | None = None,
    ) -> ImageData:
        """Build with the fingerprint of these splits."""
        return cls(name, train, test, classes, fingerprint(train, test), statistics)

    def training_split(self) -> Examples:
        """The training split.

        Raises:
            DataError: there are only test images.
        """
        if self.test_only:
            raise DataError(f"{self.name} has test images only; add train/<class>/ folders beside them.")
        return self.train

    @property
    def num_classes(self) -> int:
        """Number of classes C; labels are 0 to C − 1."""
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self.train.shape

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean intensity of each channel over the train split, in [0, 1]."""
        return (self.statistics or self._moments)[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation (over N, not N − 1) of each channel over the train split, in units of [0, 1]."""
        return (self.statistics or self._moments)[1]

    @cached_property
    def _moments(self) -> Statistics:
        images = self.train.images
        total = torch.zeros(self.shape[0], dtype=torch.float64)
        squares = torch.zeros_like(total)
        for start in range(0, len(self.train), 500):
            values = images[start : start + 500].float()
            # sums of squared bytes over a row (up to width 258) are exact in float32: threads cannot change them
            total += values.sum(-1).double().sum((0, 2))
            squares += values.square().sum(-1).double().sum((0, 2))
        count = images.numel() / self.shape[0]
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(0.0).sqrt()
        return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def fingerprint(*splits: Examples) -> str:
    """SHA-256 (hex) of the facts of some splits, such as shapes and bytes of their tensors."""
    return sha256(*(fact for split in splits for fact in split.facts()))


def as_float(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Bytes to float32 in [0, 1] (divided by 255), keeping the memory format."""
    return images.float().div_(255.0)


def check_images(images: Float[Tensor, "n c h w"], what: str = "images") -> None:
    """Check images of a user: a float tensor N×C×H×W, finite, in [0, 1].

    Raises:
        DataError: what was given, what is allowed and how to fix it.
    """
    if not isinstance(images, Tensor):
        raise DataError(f"{what} must be a torch tensor N×C×H×W; got {type(images).__name__}.")
    if images.ndim != 4 or images.numel() == 0:
        hint = " For N×H×W, pass images[:, None]; for one image C×H×W, images[None]." if images.ndim == 3 else ""
        raise DataError(f"{what} must have the shape N×C×H×W with at least one image; got {_described(images)}.{hint}")
    if not images.is_floating_point():
        raise DataError(f"{what} must be floats in [0, 1]; got {images.dtype}. For bytes, pass images.float() / 255.")
    low, high = (float(bound) for bound in images.aminmax())
    if not (low >= 0.0 and high <= 1.0):
        raise DataError(f"{what} must lie in [0, 1]{_range_fault(images, low, high)}")


def _range_fault(images: Tensor, low: float, high: float) -> str:
    finite = images.isfinite()
    if not finite.all():
        first = (~finite).nonzero()[0].tolist()
        return f" and be finite; image {first[0]} holds {float(images[tuple(first)])}."
    given = f"; these range from {low:.6g} to {high:.6g}."
    if low < 0.0:
        return f"{given} They look standardised: pass them before standardisation, which belongs into the model."
    if 1.5 < high <= 255.0:
        return f"{given} They look like bytes: divide by 255."
    return f"{given} Clamp them if this is a rounding error, otherwise rescale."


def check_integers(values: Int[Tensor, " n"], what: str, n: int | None = None) -> None:
    """Check labels or indices of a user: a tensor of N integers, N the number of images if it is known.

    Raises:
        DataError: what was given, what is allowed and how to fix it.
    """
    if not isinstance(values, Tensor):
        raise DataError(f"{what} must be a torch tensor of integers; got {type(values).__name__}.")
    integers = not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)
    if values.ndim != 1 or not integers or n not in (None, len(values)):
        hint = " Of one-hot labels, pass labels.argmax(1)." if values.ndim == 2 and values.shape[1] > 1 else ""
        of = "image" if n is None else f"of {n} images"
        raise DataError(f"{what} must be integers of shape N, one for each {of}; got {_described(values)}.{hint}")


def check_labels(labels: Int64[Tensor, " n"], num_classes: int, what: str = "labels") -> None:
    """Check labels of a user: an integer tensor of N class indices.

    Raises:
        DataError: not integers, not one-dimensional, or out of range; the message names the first bad index and value.
    """
    check_integers(labels, what)
    bad = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(bad):
        index = int(bad[0])
        low, high = (int(bound) for bound in labels.aminmax())
        raise DataError(
            f"{what}[{index}] is {int(labels[index])}; with {num_classes} classes a label is 0 to "
            f"{num_classes - 1} ({len(bad)} of {len(labels)} labels are out of range)."
            + (" They seem to start at 1: subtract 1." if low == 1 and high == num_classes else "")
        )


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
