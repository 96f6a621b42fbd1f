"""Reading published files: ``.npy`` arrays of 32×32 images, and folders of image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from isthmus.core.errors import DataError, brief
from isthmus.core.files import check_regular, sha256
from isthmus.data.crops import Interpolation
from isthmus.data.decode import class_folders, need_pillow
from isthmus.data.on_demand import FileSplit
from isthmus.data.shift.shifted import Published, listed


def read_images(file: Path, count: int, published: Published, rows: slice = slice(None)) -> UInt8[Tensor, "n c h w"]:
    """Read some ``rows`` of a file of ``count`` images, 32×32×3 bytes each, stored channels-last.

    Raises:
        DataError: the file is missing (the message says how to get it), damaged, or has other content.
    """
    array = _mapped(file, published)
    _check_shape(array, file, (count, 32, 32, 3))
    if array.dtype != np.uint8:
        raise DataError(f"{file} holds {array.dtype}; images of {published.title} are uint8.")
    if not array.flags.c_contiguous:
        raise DataError(
            f"{file} is stored in Fortran order, in which every image is spread over the whole file; save it in C "
            "order: np.save(file, np.ascontiguousarray(np.load(file)))."
        )
    return torch.from_numpy(np.array(array[rows])).permute(0, 3, 1, 2).contiguous()


def read_labels(file: Path, count: int, num_classes: int, published: Published) -> Int64[Tensor, " n"]:
    """Read a file of ``count`` labels.

    Raises:
        DataError: as :func:`read_images`; or labels that are not integers from 0 to ``num_classes`` − 1.
    """
    array = _mapped(file, published)
    _check_shape(array, file, (count,))
    if array.dtype.kind not in "iu":
        raise DataError(f"{file} holds {array.dtype}; labels of {published.title} are integers.")
    bad = np.flatnonzero((array < 0) | (array >= num_classes))
    if bad.size:
        raise DataError(f"{file}: label {bad[0]} is {array[bad[0]]}; expected 0 to {num_classes - 1}.")
    return torch.from_numpy(np.array(array, dtype=np.int64))


def _mapped(file: Path, published: Published) -> NDArray[Any]:
    check_regular(file)
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"There is no {file}. {published.advice}") from None
    except Exception as error:  # truncated, empty, a pickle, a pointer of git-lfs, ...: numpy raises nearly anything
        reason = brief(error).rstrip(".")
        raise DataError(f"{file} is not a whole .npy file ({reason}); copy it again. {published.get}") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{file} is an archive (.npz); expected a .npy file. {published.get}")
    return array


def _check_shape(array: NDArray[Any], file: Path, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise DataError(f"{file} has the shape {array.shape}; expected {shape}, as published.")


def list_images(
    root: Path, classes: Sequence[str], published: Published, size: int, shorter: int, interpolation: Interpolation
) -> FileSplit:
    """The images in the ``<class>/`` folders below ``root``, in the order of their names.

    Args:
        classes: of the classifier; a label is a position in it.
        size, shorter, interpolation: see :class:`isthmus.data.on_demand.FileSplit`.

    Raises:
        DataError: Pillow is missing, there are no such folders, or one is empty or no class of the classifier.
    """
    need_pillow()
    try:
        found = class_folders(root)
        if not found:
            raise DataError(f"{root} has no <class>/ folders with images. {published.advice}")
        extra = [name for name in found if name not in classes]
        if extra:
            raise DataError(
                f"{root} has the classes {listed(extra, 3)}, which the classifier's do not include "
                f"({listed(classes, 3)}); its classes must be named as the folders are, by WordNet ids."
            )
        return FileSplit.listed(root, classes, size, shorter, interpolation)
    except OSError as error:
        raise DataError(f"Cannot read {root}: {error}.") from None


def require_classes(classes: tuple[str, ...] | None, published: Published) -> tuple[str, ...]:
    """The classifier's classes.

    Raises:
        DataError: they are None.
    """
    if classes is None:
        raise DataError(
            f"{published.title} needs `classes`, the names of the classifier's classes in the order of its logits; for "
            "a classifier trained on ImageNet's folders, the 1,000 WordNet ids, sorted (data.classes)."
        )
    return classes


def hash_names(split: FileSplit) -> str:
    """A hash of the file names, which is equal for all corruptions of the same images."""
    return sha256("\n".join(split.names).encode("utf-8", "surrogateescape"))
