"""``parquet:PATH``: photographs in the shards of a hub dataset, decoded when needed and never all in memory.

``PATH/<split>-00000-of-00257.parquet`` and so on, at any depth, the layout of ``hf download`` for ImageNet and other
large sets: a column of encoded images and one of class indices. The library ``datasets`` maps the rows into memory, and
each process reads those of its share of a batch. Images are scaled, cropped and standardised like those of
``imagenet:PATH``.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Int64
from pydantic import Field
from torch import Tensor

from isthmus.core.errors import DataError, brief
from isthmus.data.decode import encoded_image, need_pillow, opened
from isthmus.data.imagenet import MEAN, STD
from isthmus.data.images import ImageData
from isthmus.data.loading import FolderPath, folder_at
from isthmus.data.on_demand import PhotographDataset, Photographs

if TYPE_CHECKING:
    from PIL.Image import Image

Column = Annotated[str, Field(min_length=1)]


class ParquetImages(PhotographDataset):
    """Photographs in parquet files.

    Attributes:
        path: the folder with the shards.
        train, test: names of the splits, which begin the file names; ``validation`` is ImageNet's name.
        image, label: names of the columns.
        size, shorter, interpolation: see :class:`isthmus.data.on_demand.PhotographDataset`.
    """

    argument: ClassVar[str | None] = "path"

    name: Literal["parquet"] = "parquet"
    path: FolderPath
    train: Column = "train"
    test: Column = "validation"
    image: Column = "image"
    label: Column = "label"

    def read(self) -> ImageData:
        """Map the shards into memory without decoding images.

        ``datasets`` first copies the rows into its own format, once, below ``HF_HOME``, which takes as much disk as the
        shards.

        Raises:
            DataError: ``datasets`` is not installed, or shards are missing, unreadable or lack these columns; the
                message names them.
        """
        need_pillow()
        root = folder_at(self.path)
        train, classes = _split(root, self.train, self)
        test, _ = _split(root, self.test, self)
        if not classes:
            classes = tuple(map(str, range(int(train.labels.max()) + 1)))
        return ImageData.of(f"parquet-{root.name[:40]}", train, test, classes, (MEAN, STD))


@dataclass(frozen=True, eq=False, repr=False)
class RowSplit(Photographs):
    """Labelled photographs in rows of a table.

    Attributes:
        table: a ``datasets.Dataset`` whose images are not decoded.
        origin: names and lengths of the files that it was made from.
        column: name of the column of images.
        rows, labels, size, shorter, interpolation: see :class:`isthmus.data.on_demand.Photographs`.
    """

    table: Any
    origin: tuple[tuple[str, int], ...]
    column: str

    def __repr__(self) -> str:
        return f"RowSplit({len(self)} rows of {len(self.origin)} files, read as {'×'.join(map(str, self.shape))})"

    def opened(self, index: int) -> tuple[Image, str]:
        """The photograph of a row, and its place for error messages."""
        row = int(self.rows[index])
        where = f"{Path(self.origin[0][0]).parent}: row {row} of the split"
        return opened(encoded_image(self.table[row][self.column], where), 3, where), where

    def identity(self) -> tuple[str, Iterable[str], Int64[Tensor, " n"]]:
        """Reading options, names and lengths of the files, and rows."""
        files = (f"{Path(name).name} {length}" for name, length in self.origin)
        return f"{self.size} {self.shorter} {self.interpolation} {self.column}", files, self.rows


def _split(root: Path, name: str, dataset: ParquetImages) -> tuple[RowSplit, tuple[str, ...]]:
    """A split, and the names of its classes if the files have them."""
    try:
        found = [(path, path.stat().st_size) for path in sorted(root.rglob(f"{glob.escape(name)}-*.parquet"))]
    except OSError as error:
        raise DataError(f"Cannot read the files below {root}: {error}.") from None
    if not found:
        raise DataError(
            f"{root} holds no {name}-*.parquet; give the folder that `hf download` filled, and name its splits with "
            "train=... and test=... if they have other names."
        )
    table, classes = _table([path for path, _ in found], dataset)
    labels = np.asarray(table.with_format("numpy")[dataset.label][:])
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"The column {dataset.label} of {root} holds {labels.dtype}; expected a class index in each row."
        )
    split = RowSplit(
        table.select_columns([dataset.image]),
        tuple((str(path), size) for path, size in found),
        dataset.image,
        rows=torch.arange(len(table)),
        labels=torch.from_numpy(labels.astype(np.int64)),
        size=dataset.size,
        shorter=dataset.scaled_to,
        interpolation=dataset.interpolation,
    )
    return split, classes


def _table(paths: list[Path], dataset: ParquetImages) -> tuple[Any, tuple[str, ...]]:
    from isthmus.data.hub import library

    datasets = library()
    try:
        table = datasets.load_dataset("parquet", data_files=[glob.escape(str(path)) for path in paths], split="train")
        lacking = {dataset.image, dataset.label} - set(table.column_names)
        if lacking:
            raise DataError(
                f"{paths[0]} has the columns {', '.join(table.column_names)}; expected {dataset.image} and "
                f"{dataset.label}, or name them with image=... and label=...."
            )
        names = getattr(table.features[dataset.label], "names", None) or ()
        return table.cast_column(dataset.image, datasets.Image(decode=False)), tuple(names)
    except DataError:
        raise
    except Exception as error:  # whatever parquet, Arrow and the file system raise
        reason = f"{type(error).__name__}: {brief(error)}".rstrip(".")
        raise DataError(
            f"Cannot read {paths[0].parent}/*.parquet: {reason}. If a file is corrupt, copy it again."
        ) from None
