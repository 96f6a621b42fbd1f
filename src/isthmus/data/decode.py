"""Image files: lists of class folders, decoding with Pillow with errors that name the file, and a progress bar."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from isthmus.core.errors import DataError, brief
from isthmus.data.images import Split

if TYPE_CHECKING:
    from PIL.Image import Image

Channels = Literal[1, 3]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pnm", ".tif", ".tiff")

_EIGHT_BIT = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "La", "RGBa"}


_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
"""Allowed formats. Pillow detects them by content, and would start other programs for some (PostScript)."""


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the folders below ``folder``, sorted; hidden ones are left out."""
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))


def image_files(folder: Path) -> list[tuple[str, int]]:
    """Names and lengths of the image files of one class, sorted by name.

    Raises:
        DataError: there is none.
        OSError: the folder or one of the files cannot be read.
    """
    # os.scandir rather than pathlib: there may be a million files
    with os.scandir(folder) as entries:
        listed = [(entry.name, entry.stat()) for entry in entries if entry.name[0] != "." and _is_image(entry.name)]
    # regular files only: reading a pipe would not end
    found = [(name, about.st_size) for name, about in listed if stat.S_ISREG(about.st_mode)]
    if not found:
        raise DataError(f"{folder} holds no image ({', '.join(SUFFIXES)}).")
    return sorted(found)


def other_files(folder: Path) -> list[str]:
    """Names of the files of a folder that are neither images nor hidden, sorted."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.name[0] != "." and not _is_image(e.name) and e.is_file())


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def need_pillow() -> None:
    """Check that Pillow is installed, before any work is done.

    Raises:
        DataError: it is not; the message says how to install it.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise DataError(f"Reading images needs Pillow ({error}): pip install 'isthmus[hub]'") from None


def pixels(file: Path | BytesIO, channels: Channels, where: str, size: int | None = None) -> np.ndarray:
    """Decode one image to uint8, height × width × channels.

    Args:
        where: name of the image for errors.
        size: crop the centre to a square and resample it to ``size`` × ``size`` (bilinear, antialiased).

    Raises:
        DataError: not an image, truncated, or with more than 8 bits a channel (which Pillow would clip).
    """
    from PIL import Image, ImageOps

    image = opened(file, channels, where)
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image.height, image.width, channels)


def opened(file: Path | BytesIO, channels: Channels, where: str) -> Image:
    """Decode one image to Pillow's mode RGB or L, in its original size; errors as in :func:`pixels`."""
    from PIL import Image

    try:
        with Image.open(file, formats=_FORMATS) as image:
            if image.mode not in _EIGHT_BIT:
                raise DataError(f"{where} has pixels of mode {image.mode!r}; save it with 8 bits a channel.")
            return image.convert("L" if channels == 1 else "RGB")
    except DataError:
        raise
    except Exception as error:  # whatever Pillow's decoders raise on broken files
        raise DataError(f"{where} is not a readable image: {brief(error)}") from None


def encoded_image(cell: Any, where: str) -> BytesIO:
    """The image file in a cell of a table of the library ``datasets``.

    Raises:
        DataError: there is none; ``where`` names the cell.
    """
    content = cell.get("bytes") if isinstance(cell, dict) else None
    if not isinstance(content, bytes):
        raise DataError(f"{where} holds no image.")
    return BytesIO(content)


def stacked(images: Sequence[np.ndarray], labels: Sequence[int], where: Callable[[int], str], advice: str) -> Split:
    """Stack decoded images and labels into a split.

    Args:
        where: gives the name of the image at a position, for errors.
        advice: what to do if images have different sizes.

    Raises:
        DataError: no images, or images of different sizes.
    """
    for index, image in enumerate(images):
        if image.shape != images[0].shape:
            (h, w, _), (h0, w0, _) = image.shape, images[0].shape
            raise DataError(f"{where(index)} is {h}×{w} (height×width) but {where(0)} is {h0}×{w0}; {advice}.")
    if not images:
        raise DataError("There is no image to stack.")
    # ``contiguous`` would keep the strides of grey images, which convolutions take for channels-last memory.
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)
    return Split(pixels, torch.tensor(labels, dtype=torch.int64))


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr if that is a terminal; yields a function that advances it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
