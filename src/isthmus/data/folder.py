"""``folder:PATH``: images of a user, one folder per class.

Either ``PATH/train/<class>/*.png`` with ``PATH/test/<class>/*.png``, or ``PATH/<class>/*.png`` alone, of which a fixed
stratified part becomes the test split. ``PATH/test/<class>/*.png`` alone suffices for an audit. Labels follow the
alphabetical order of the classes, or the option ``classes``. All images are decoded once, cached and held in memory.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from isthmus.core.errors import DataError
from isthmus.data.cache import cached
from isthmus.data.decode import (
    Channels,
    class_folders,
    image_files,
    need_pillow,
    other_files,
    pixels,
    progress,
    stacked,
)
from isthmus.data.images import ImageData, Split
from isthmus.data.loading import FolderPath, ImageDataset, folder_at
from isthmus.data.order import stratified

logger = logging.getLogger(__name__)

Labelled = list[tuple[Path, int]]


class DecodedImages(ImageDataset):
    """Images in files of a user.

    Attributes:
        path: the folder or table.
        size: crop the centre of every image to a square and resample it to size × size pixels; needed unless all
            images have the same size.
        channels: 3 for RGB, 1 for grey; images are converted.
    """

    path: FolderPath
    size: Annotated[int, Field(gt=0)] | None = None
    channels: Channels = 3

    def decoded(self, files: Labelled) -> Split:
        """The images of these files.

        Raises:
            DataError: Pillow is missing, a file is unreadable, or images have different sizes without ``size``.
        """
        need_pillow()
        images = []
        with progress(f"decoding {self.path}", len(files)) as advance:
            for file, _ in files:
                images.append(pixels(file, self.channels, str(file), self.size))
                advance(1)
        advice = "set size to have all resampled to size × size pixels"
        return stacked(images, [label for _, label in files], lambda i: str(files[i][0]), advice)


class ImageFolder(DecodedImages):
    """Images in folders.

    Attributes:
        test_fraction: fraction of each class for the test split, if the folder has no ``train`` and ``test``.
    """

    argument: ClassVar[str | None] = "path"

    name: Literal["folder"] = "folder"
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2

    def read(self) -> ImageData:
        """The images of the folder.

        Raises:
            DataError: a folder or file that is missing, empty or unreadable; images of different sizes without
                ``size``; a test class without training images. The message names the folder or file.
        """
        root = folder_at(self.path)
        try:
            train, test, classes = _listed(root, self.test_fraction)
            halves = _halves(root)
            source = _facts(root, self, train, test)
        except OSError as error:
            raise DataError(f"Cannot read the image folder {root}: {error}.") from None

        def decode() -> tuple[Split, Split]:
            # Both at once, so that an image of another size is reported wherever it is.
            both = self.decoded([*train, *test])
            positions = torch.arange(len(both))
            return both.select(positions[: len(train)]), both.select(positions[len(train) :])

        if self.classes is None:
            _warn_of_order(root, classes)
        data = cached(f"folder-{root.name[:40]}", classes, source, decode)
        if not halves:
            note = (
                f"{self.test_fraction:.0%} of each class, a fixed choice, are the test split, since there is no test/"
            )
            data = replace(data, note=note)
        return replace(data, test_only=halves == ["test"])


def _warn_of_order(root: Path, classes: tuple[str, ...]) -> None:
    ordered = sorted(classes, key=natural)
    if ordered == list(classes):
        return
    first = next(i for i, name in enumerate(classes) if name != ordered[i])
    logger.warning(
        "%s: labels follow the alphabetical order of the classes, %s, so that label %d is %r; for another order "
        "give the option classes.",
        root,
        ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else ""),
        first,
        classes[first],
    )


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _halves(root: Path) -> list[str]:
    return [half for half in ("train", "test") if (root / half).is_dir() and class_folders(root / half)]


def _listed(root: Path, test_fraction: float) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    """Files and labels of the two splits, and the names of the classes."""
    if not root.is_dir():
        raise DataError(f"There is no folder {root}.")
    halves = _halves(root)
    if halves == ["train"]:
        raise DataError(
            f"{root} has train/<class>/ folders but no test/<class>/ folders; add it, or give {root / 'train'} to have "
            "a part of it tested on."
        )
    if halves == ["test"]:
        test, classes = _labelled(root / "test", None)
        return [next(each for each in test if each[1] == label) for label in range(len(classes))], test, classes
    if not halves:
        everything, classes = _labelled(root, None)
        labels = torch.tensor([label for _, label in everything])
        first, second = stratified(labels, test_fraction)
        if not len(second):
            raise DataError(f"{root} has too few images for test_fraction={test_fraction}; give a larger one.")
        return [everything[i] for i in first.tolist()], [everything[i] for i in second.tolist()], classes
    train, classes = _labelled(root / "train", None)
    return train, _labelled(root / "test", classes)[0], classes


def _labelled(folder: Path, classes: tuple[str, ...] | None) -> tuple[Labelled, tuple[str, ...]]:
    """The images under <class>/ folders, in order of their names, and the classes."""
    found = class_folders(folder)
    if not found:
        raise DataError(f"{folder} has no <class>/ folders with images.")
    classes = classes or found
    extra = [name for name in found if name not in classes]
    if extra:
        raise DataError(
            f"{folder / extra[0]} is a class without training images (classes with images: {', '.join(classes)})."
        )
    return [(file, classes.index(name)) for name in found for file in _images(folder / name)], classes


def _images(folder: Path) -> list[Path]:
    if others := other_files(folder):
        logger.warning("%s: %d files that are not images are ignored, such as %s.", folder, len(others), others[0])
    return [folder / name for name, _ in image_files(folder)]


def _facts(root: Path, dataset: ImageFolder, train: Labelled, test: Labelled) -> Mapping[str, Any]:
    """What the decoded images depend on."""
    # The path is included: bitmaps of one size with the times of their archive look alike everywhere.
    listed = [
        [[str(f.relative_to(root)), f.stat().st_size, f.stat().st_mtime_ns] for f, _ in half] for half in (train, test)
    ]
    return {"folder": str(root), "size": dataset.size, "channels": dataset.channels, "files": listed}
