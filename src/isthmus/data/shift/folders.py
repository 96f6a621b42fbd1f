"""Published image folders as a split of files, which are decoded batch by batch: ImageNet's sizes need no memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from isthmus.core.errors import DataError
from isthmus.core.files import sha256
from isthmus.data.decode import need_pillow
from isthmus.data.imagenet import class_folders, image_files
from isthmus.data.on_demand import FileSplit
from isthmus.data.resized_crop import Interpolation
from isthmus.data.shift.loading import Published, listed


def listing(
    root: Path, classes: Sequence[str], published: Published, size: int, shorter: int, interpolation: Interpolation
) -> FileSplit:
    """The images of the ``<class>/`` folders below ``root``, in the order of their names.

    Args:
        classes: the classifier's; a label is a position in it.
        size, shorter, interpolation: see :class:`isthmus.data.on_demand.FileSplit`.

    Raises:
        DataError: Pillow is missing, there are no such folders, or one is empty or no class of the classifier.
    """
    need_pillow()
    try:
        found = {name: image_files(root / name) for name in class_folders(root)}
    except OSError as error:
        raise DataError(f"Cannot read {root}: {error}.") from None
    if not found:
        raise DataError(f"{root} has no <class>/ folders with images. {published.advice}")
    index = {name: label for label, name in enumerate(classes)}
    foreign = [name for name in found if name not in index]
    if foreign:
        raise DataError(
            f"{root} has the classes {listed(foreign, 3)}, which the classifier's do not include "
            f"({listed(classes, 3)}); its classes must be named as the folders are, by WordNet ids."
        )
    files = [(f"{name}/{file}", length, index[name]) for name in found for file, length in found[name]]
    paths, lengths, labels = zip(*files, strict=True)
    return FileSplit(root, paths, torch.tensor(lengths), torch.tensor(labels), size, shorter, interpolation)


def given(classes: tuple[str, ...] | None, published: Published) -> tuple[str, ...]:
    """The classifier's classes.

    Raises:
        DataError: they were not given; says which they are.
    """
    if classes is None:
        raise DataError(
            f"{published.title} needs `classes`, the names of the classifier's classes in the order of its logits; for "
            "one that was trained on ImageNet's folders these are the 1,000 WordNet ids, sorted (data.classes)."
        )
    return classes


def examples(split: FileSplit) -> str:
    """A hash of the files' names: the same for every corruption of the same images."""
    return sha256("\n".join(split.names).encode("utf-8", "surrogateescape"))
