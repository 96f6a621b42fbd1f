"""``imagenet:PATH``: photographs in class folders, decoded when needed and never all in memory.

``PATH/train/<class>/*.JPEG`` and ``PATH/val/<class>/*.JPEG``, the usual layout of the ILSVRC archives; the classes of
ImageNet are 1,000 WordNet ids such as n01440764. For evaluation the shorter side is scaled to 256 pixels and the centre
of 224×224 is cut out. Other data with this layout and at least two classes work, too. ``PATH/val`` alone can be
audited on but not trained on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import torch

from isthmus.core.errors import DataError
from isthmus.data.decode import class_folders, need_pillow
from isthmus.data.images import ImageData
from isthmus.data.loading import FolderPath, folder_at
from isthmus.data.on_demand import FileSplit, PhotographDataset

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's training images, per channel in [0, 1], with the usual rounding."""


class ImageNet(PhotographDataset):
    """ImageNet, or other data with its layout.

    Attributes:
        path: the folder with ``val``, and with ``train`` to train on.
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
            trained = _check_layout(root)
            classes = class_folders(root / ("train" if trained else "val"))
            test = _split(root / "val", classes, self)
            train = _split(root / "train", classes, self) if trained else _one_of_each(test)
        except OSError as error:
            raise DataError(f"Cannot read the images below {root}: {error}.") from None
        data = ImageData.of(f"imagenet-{root.name[:40]}", train, test, classes, (MEAN, STD))
        return replace(data, test_only=not trained)


def _check_layout(root: Path) -> bool:
    """Whether there are training images."""
    if not root.is_dir():
        raise DataError(f"There is no folder {root}.")
    trained = (root / "train").exists()
    for part in ("train", "val") if trained else ("val",):
        if not (root / part).is_dir():
            raise DataError(
                f"{root} has no folder {part}; give the folder that holds val/<class>/ and, to train, train/<class>/."
            )
        if not class_folders(root / part):
            raise DataError(
                f"{root / part} has no <class>/ folders; images must be in class folders; those of "
                "ImageNet's validation archive must first be sorted into them."
            )
    return trained


def _one_of_each(test: FileSplit) -> FileSplit:
    """An image of each class, which defines the shape of data without training images."""
    return test.select(torch.tensor([int((test.labels == label).nonzero()[0]) for label in torch.unique(test.labels)]))


def _split(folder: Path, classes: tuple[str, ...], dataset: ImageNet) -> FileSplit:
    """The files below <class>/ folders, class by class in the order of their names."""
    for name in class_folders(folder):
        if name not in classes:
            raise DataError(f"{folder / name} is a class without training images: {folder.parent / 'train'} lacks it.")
    return FileSplit.listed(folder, classes, dataset.size, dataset.scaled_to, dataset.interpolation)
