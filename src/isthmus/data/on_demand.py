"""A split whose images stay in their files and are decoded when they are needed: for data larger than memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from pydantic import Field, model_validator
from torch import Tensor

from isthmus.data.decode import opened
from isthmus.data.loading import DataConfig
from isthmus.data.reading import read
from isthmus.data.resized_crop import Interpolation, resized_crop
from isthmus.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


_LARGEST = 2**28  # pixels of an image after its shorter side was scaled


class PhotographConfig(DataConfig):
    """Options of photographs of many sizes.

    Attributes:
        size: images are size × size pixels.
        shorter: for evaluation the shorter side is scaled to so many pixels first; 256 at size 224, and in the same
            proportion otherwise, where None.
        interpolation: "bilinear" as in torchvision, or "bicubic" as in Google's implementation for TPUs.
    """

    size: Annotated[int, Field(gt=0)] = 224
    shorter: Annotated[int, Field(gt=0)] | None = None
    interpolation: Interpolation = "bilinear"

    @model_validator(mode="after")
    def _shorter_side_holds_the_crop(self) -> PhotographConfig:
        if self.shorter is not None and self.shorter < self.size:
            raise ValueError(f"shorter={self.shorter} leaves no {self.size}×{self.size} pixels to cut out")
        return self

    @property
    def scaled_to(self) -> int:
        """Pixels of the shorter side for evaluation."""
        return self.shorter or round(self.size * 256 / 224)


@dataclass(frozen=True, eq=False, repr=False)
class FileSplit:
    """Labelled image files; what is read of them is RGB, 3 × ``size`` × ``size`` bytes.

    Attributes:
        root: folder that the names start from.
        names: of the files, below ``root``.
        lengths: int64, N, bytes of each file.
        labels: int64, N, the index of each image's class.
        size: height and width.
        shorter: the shorter side is scaled to so many pixels, and the centre of size × size is cut out. Training with a
            resized crop starts from the file's own size instead.
        interpolation: Pillow's filter, antialiased.

    Raises:
        DataError: there is no file.
    """

    root: Path
    names: tuple[str, ...]
    lengths: Int64[Tensor, " n"]
    labels: Int64[Tensor, " n"]
    size: int
    shorter: int
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        if not self.names:
            raise DataError(f"A split needs at least one image; there is none below {self.root}.")

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"FileSplit({len(self)} files below {self.root}, read as {'×'.join(map(str, self.shape))})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image that is read."""
        return 3, self.size, self.size

    @property
    def images(self) -> UInt8[Tensor, "n c h w"]:
        """All images, decoded now: of a whole ImageNet this would be 190 GB, so :meth:`select` some first.

        Raises:
            DataError: a file that is missing or no image; names it.
        """
        return next(read(self, [torch.arange(len(self))]))[1]

    def select(self, indices: Int64[Tensor, " m"]) -> FileSplit:
        """The files at these positions, in this order; reads none of them."""
        return FileSplit(
            self.root,
            tuple(self.names[i] for i in indices.tolist()),
            self.lengths.index_select(0, indices),
            self.labels.index_select(0, indices),
            self.size,
            self.shorter,
            self.interpolation,
        )

    def labelled(self, labels: Int64[Tensor, " n"]) -> FileSplit:
        """The same files with other labels."""
        return replace(self, labels=labels)

    def prepared(self, index: int, part: Sequence[float] | None) -> np.ndarray:
        """One image as size × size × 3 bytes, scaled and cut as ``shorter`` says, or a random part of it.

        Raises:
            DataError: its file is missing or no image; names it.
        """
        file = self.root / self.names[index]
        return fitted(opened(file, 3, str(file)), part, self.size, self.shorter, self.interpolation, str(file))

    def facts(self) -> Iterator[Any]:
        """Names and lengths of the files, labels, and how they are read; not their bytes, which would take hours."""
        yield f"{self.size} {self.shorter} {self.interpolation}".encode()
        yield "\n".join(self.names).encode("utf-8", "surrogateescape")
        yield self.lengths.contiguous().numpy()
        yield self.labels.contiguous().numpy()


def fitted(
    image: Image, part: Sequence[float] | None, size: int, shorter: int, interpolation: Interpolation, where: str
) -> np.ndarray:
    """A photograph as size × size × 3 bytes: a random part of it, or the centre where ``part`` is None.

    Raises:
        DataError: it is too long and thin; ``where`` names it.
    """
    if part is not None:
        return resized_crop(image, part, (size, size), interpolation)
    if max(image.size) * shorter**2 // min(image.size) > _LARGEST:
        raise DataError(f"{where} has {image.width}×{image.height} pixels, too long and thin to scale; leave it out.")
    return central(image, shorter, size, interpolation)


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
