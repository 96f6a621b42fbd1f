"""Splits whose images are decoded from files when needed, for data larger than memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from pydantic import Field, model_validator
from torch import Tensor

from isthmus.core.errors import DataError
from isthmus.data.crops import Interpolation, resized_crop
from isthmus.data.decode import class_folders, image_files, opened
from isthmus.data.loading import ImageDataset
from isthmus.data.prefetch import read

if TYPE_CHECKING:
    from PIL.Image import Image


_LARGEST = 2**28  # pixels of an image after its shorter side was scaled


class PhotographDataset(ImageDataset, ABC):
    """Base of datasets of photographs of many sizes.

    Attributes:
        size: images are size × size pixels.
        shorter: for evaluation, the shorter side is first scaled to this many pixels; None means 256 at size 224, and
            the same proportion otherwise.
        interpolation: "bilinear" as in torchvision, or "bicubic" as in Google's implementation for TPUs.
    """

    size: Annotated[int, Field(gt=0)] = 224
    shorter: Annotated[int, Field(gt=0)] | None = None
    interpolation: Interpolation = "bilinear"

    @model_validator(mode="after")
    def _shorter_side_holds_the_crop(self) -> Self:
        if self.shorter is not None and self.shorter < self.size:
            raise ValueError(f"shorter={self.shorter} leaves no {self.size}×{self.size} pixels to cut out")
        return self

    @property
    def scaled_to(self) -> int:
        """Pixels of the shorter side for evaluation."""
        return self.shorter or round(self.size * 256 / 224)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Photographs(ABC):
    """Base of splits of labelled photographs, which are read as RGB, 3 × size × size bytes.

    Attributes:
        rows: int64, N, position of each image in its source.
        labels: int64, N, the index of each image's class.
        size: height and width.
        shorter: the shorter side is scaled to this many pixels, and the centre of size × size is cut out. Training with
            a resized crop starts from the original photograph instead.
        interpolation: Pillow's filter, antialiased.
    """

    rows: Int64[Tensor, " n"]
    labels: Int64[Tensor, " n"]
    size: int
    shorter: int
    interpolation: Interpolation = "bilinear"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image that is read."""
        return 3, self.size, self.size

    @property
    def images(self) -> UInt8[Tensor, "n c h w"]:
        """All images, decoded now. For all of ImageNet this would be 190 GB, so :meth:`select` some first.

        Raises:
            DataError: a file is missing or no image; the message names it.
        """
        return next(read(self, [torch.arange(len(self))]))[1]

    def select(self, indices: Int64[Tensor, " m"]) -> Self:
        """The photographs at these positions, in this order; reads none of them."""
        return replace(self, rows=self.rows.index_select(0, indices), labels=self.labels.index_select(0, indices))

    def labelled(self, labels: Int64[Tensor, " n"]) -> Self:
        """The same photographs with other labels."""
        return replace(self, labels=labels)

    @abstractmethod
    def opened(self, index: int) -> tuple[Image, str]:
        """A photograph in its original size, and its name for error messages.

        Raises:
            DataError: it is missing or no image; the message names it.
        """

    @abstractmethod
    def identity(self) -> tuple[str, Iterable[str], Int64[Tensor, " m"]]:
        """Reading options, names and numbers that determine the images, without reading them."""

    def facts(self) -> Iterator[Any]:
        """Bytes that determine images and labels, without reading the files, which would take hours."""
        options, names, numbers = self.identity()
        yield options.encode()
        yield "\n".join(names).encode("utf-8", "surrogateescape")
        yield numbers.contiguous().numpy()
        yield self.labels.contiguous().numpy()

    def prepared(self, index: int, part: Sequence[float] | None) -> np.ndarray:
        """One image as size × size × 3 bytes, scaled and cropped by ``shorter``, or a random part of it.

        Raises:
            DataError: it is missing, no image, or too elongated; the message names it.
        """
        image, where = self.opened(index)
        if part is not None:
            return resized_crop(image, part, (self.size, self.size), self.interpolation)
        if max(image.size) * self.shorter**2 // min(image.size) > _LARGEST:
            raise DataError(
                f"{where} has {image.width}×{image.height} pixels, which is too elongated to scale; remove it."
            )
        return central(image, self.shorter, self.size, self.interpolation)


@dataclass(frozen=True, eq=False, repr=False)
class FileSplit(Photographs):
    """Labelled image files.

    Attributes:
        root: folder that the names start from.
        names: of all files, below ``root``; an image is the file at its position in ``rows``.
        lengths: int64, bytes of each file.
        rows, labels, size, shorter, interpolation: see :class:`Photographs`.
    """

    root: Path
    names: tuple[str, ...]
    lengths: Int64[Tensor, " files"]

    @classmethod
    def listed(
        cls, root: Path, classes: Sequence[str], size: int, shorter: int, interpolation: Interpolation = "bilinear"
    ) -> FileSplit:
        """The image files below the <class>/ folders of ``root``, class by class in the order of their names.

        Args:
            classes: include the names of all these folders; a label is a position in it.
            size, shorter, interpolation: see :class:`Photographs`.

        Raises:
            DataError: a folder holds no image, or there is no folder.
            OSError: a folder cannot be read.
        """
        number = {name: label for label, name in enumerate(classes)}
        files = [
            (f"{name}/{file}", length, number[name])
            for name in class_folders(root)
            for file, length in image_files(root / name)
        ]
        if not files:
            raise DataError(f"A split needs at least one image; there is none below {root}.")
        names, lengths, labels = zip(*files, strict=True)
        return cls(
            root,
            names,
            torch.tensor(lengths),
            rows=torch.arange(len(names)),
            labels=torch.tensor(labels),
            size=size,
            shorter=shorter,
            interpolation=interpolation,
        )

    def __repr__(self) -> str:
        return f"FileSplit({len(self)} files below {self.root}, read as {'×'.join(map(str, self.shape))})"

    def opened(self, index: int) -> tuple[Image, str]:
        """The photograph of a file, and the file's path."""
        file = self.root / self.names[int(self.rows[index])]
        return opened(file, 3, str(file)), str(file)

    def identity(self) -> tuple[str, Iterable[str], Int64[Tensor, " n"]]:
        """Reading options, and names and lengths of the files."""
        names = (self.names[row] for row in self.rows.tolist())
        return f"{self.size} {self.shorter} {self.interpolation}", names, self.lengths.index_select(0, self.rows)


def central(image: Image, shorter: int, size: int, interpolation: Interpolation) -> np.ndarray:
    """Scale the shorter side and cut out the centre: torchvision's Resize and CenterCrop, to the pixel.

    Returns:
        size × size × channels bytes.
    """
    from PIL import Image

    width, height = (shorter * side // min(image.size) for side in image.size)
    whole = image.resize((width, height), Image.Resampling[interpolation.upper()])
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(whole.crop((left, top, left + size, top + size)))
