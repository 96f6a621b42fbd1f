"""``imagenet:PATH``: photographs in class folders, decoded when needed and never all in memory.

``PATH/train/<class>/*.JPEG`` and ``PATH/val/<class>/*.JPEG``, the usual layout of the ILSVRC archives; the classes of
ImageNet are 1,000 WordNet ids such as n01440764. For evaluation the shorter side is scaled to 256 pixels and the centre
of 224×224 is cut out. Other data with this layout and at least two classes work, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

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


def _split(folder: Path, classes: tuple[str, ...], dataset: ImageNet) -> FileSplit:
    """The files below <class>/ folders, class by class in the order of their names."""
    for name in class_folders(folder):
        if name not in classes:
            raise DataError(f"{folder / name} is a class without training images: {folder.parent / 'train'} lacks it.")
    return FileSplit.listed(folder, classes, dataset.size, dataset.scaled_to, dataset.interpolation)
