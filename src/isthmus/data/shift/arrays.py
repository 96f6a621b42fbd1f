"""Published ``.npy`` files of 32×32 images: mapped, checked, and read only where they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from isthmus.core.errors import DataError, brief
from isthmus.core.files import DAMAGED, check_regular
from isthmus.data.shift.loading import Published


def images(file: Path, count: int, published: Published, rows: slice = slice(None)) -> UInt8[Tensor, "n c h w"]:
    """Read some ``rows`` of a file of ``count`` images, 32×32×3 bytes each, channels last there and first here.

    Raises:
        DataError: the file is missing (says how to get it), is not a whole ``.npy`` file, or holds something else.
    """
    array = _mapped(file, published)
    _check_shape(array, file, (count, 32, 32, 3))
    if array.dtype != np.uint8:
        raise DataError(f"{file} holds {array.dtype}; images of {published.title} are uint8.")
    if not array.flags.c_contiguous:
        raise DataError(
            f"{file} is stored in Fortran order, where each image is spread over the whole file; store it again in C "
            "order: np.save(file, np.ascontiguousarray(np.load(file)))."
        )
    return torch.from_numpy(np.array(array[rows])).permute(0, 3, 1, 2).contiguous()


def labels(file: Path, count: int, num_classes: int, published: Published) -> Int64[Tensor, " n"]:
    """Read a file of ``count`` labels.

    Raises:
        DataError: as :func:`images`, or labels that are no integers from 0 to ``num_classes`` − 1.
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
    try:
        check_regular(file)
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"There is no {file}. {published.advice}") from None
    except DAMAGED as error:
        # numpy's words for files that are cut off, empty, pickles, pointers of git-lfs, ...
        reason = brief(error).rstrip(".")
        raise DataError(f"{file} is not a whole .npy file ({reason}); copy it again. {published.get}") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{file} is an archive (.npz); expected a .npy file. {published.get}")
    return array


def _check_shape(array: NDArray[Any], file: Path, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise DataError(f"{file} has the shape {array.shape}; expected {shape}, as published.")
