"""``imagenet:PATH``: photographs in class folders, decoded when needed and never all in memory.

``PATH/train/<class>/*.JPEG`` and ``PATH/val/<class>/*.JPEG``, the usual layout of the ILSVRC archives; the classes of
ImageNet are 1,000 WordNet ids such as n01440764. For evaluation the shorter side is scaled to 256 pixels and the centre
of 224×224 is cut out. Other data with this layout and at least two classes work, too.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import ClassVar, Literal

import torch

from isthmus.core.errors import DataError
from isthmus.data.decode import need_pillow
from isthmus.data.folder import SUFFIXES
from isthmus.data.images import ImageData
from isthmus.data.loading import FolderPath, folder_at
from isthmus.data.on_demand import FileSplit, PhotographDataset

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's training images, per channel in [0, 1], with the usual rounding."""


class ImageNet(PhotographDataset):
    """ImageNet, or other data with its layout.

    Attributes:
        path: the folder with ``train`` and ``val``.
        size, shorter, interpolation: see :class:`isthmus.data.on_demand.PhotographDataset`.
    """

    argument: ClassVar[str | None] = "path"

    name: Literal["imagenet"] = "imagenet"
    path: FolderPath

    def read(self) -> ImageData:
        """List the files without opening them.

        Raises:
            DataError: a folder that is missing, empty or unreadable, or a test class without training images. The
                message names the folder.
        """
        need_pillow()
        root = folder_at(self.path)
        try:
            _check_layout(root)
            classes = class_folders(root / "train")
            train, test = (_split(root / part, classes, self) for part in ("train", "val"))
        except OSError as error:
            raise DataError(f"Cannot read the images below {root}: {error}.") from None
        return ImageData.of(f"imagenet-{root.name[:40]}", train, test, classes, (MEAN, STD))


def _check_layout(root: Path) -> None:
    if not root.is_dir():
        raise DataError(f"There is no folder {root}.")
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise DataError(f"{root} has no folder {part}; give the folder that holds train/<class>/ and val/<class>/.")
        if not class_folders(root / part):
            raise DataError(
                f"{root / part} has no <class>/ folders; images must be in class folders; those of "
                "ImageNet's validation archive must first be sorted into them."
            )


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the folders below ``folder``, sorted; hidden ones are left out."""
    with os.scandir(folder) as entries:
        return tuple(sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != "."))


def _split(folder: Path, classes: tuple[str, ...], dataset: ImageNet) -> FileSplit:
    """The files below <class>/ folders, class by class in the order of their names."""
    names: list[str] = []
    lengths: list[int] = []
    labels: list[int] = []
    number = {name: index for index, name in enumerate(classes)}
    for name in class_folders(folder):
        if name not in number:
            raise DataError(f"{folder / name} is a class without training images: {folder.parent / 'train'} lacks it.")
        files = image_files(folder / name)
        names += [f"{name}/{file}" for file, _ in files]
        lengths += [length for _, length in files]
        labels += [number[name]] * len(files)
    return FileSplit(
        folder,
        tuple(names),
        torch.tensor(lengths, dtype=torch.int64),
        torch.tensor(labels, dtype=torch.int64),
        dataset.size,
        dataset.scaled_to,
        dataset.interpolation,
    )


def image_files(folder: Path) -> list[tuple[str, int]]:
    """Names and lengths of the image files of one class, sorted by name.

    Raises:
        DataError: there is none.
        OSError: the folder cannot be read.
    """
    # os.scandir rather than pathlib: there are 1.3 million files
    with os.scandir(folder) as entries:
        listed = [
            (entry.name, entry.stat())
            for entry in entries
            if entry.name[0] != "." and os.path.splitext(entry.name)[1].lower() in SUFFIXES
        ]
    found = [
        (name, about.st_size) for name, about in listed if stat.S_ISREG(about.st_mode)
    ]  # reading a pipe would not end
    if not found:
        raise DataError(f"{folder} holds no image ({', '.join(SUFFIXES)}).")
    return sorted(found)
