"""Cache of decoded images: decode once, then map the tensors in a fraction of a second.

There is one safetensors file for each source in ``ISTHMUS_CACHE`` (default ``~/.cache/isthmus``). A corrupt file is
replaced; if a file cannot be written, images are decoded again next time.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from isthmus.core.errors import DataError, FileError
from isthmus.core.files import sha256, write_bytes
from isthmus.data.images import ImageData, Split

logger = logging.getLogger(__name__)

_FORMAT = 1  # increase when decoding changes, so that older files are not read


def cached(
    name: str, classes: tuple[str, ...], source: Mapping[str, Any], decode: Callable[[], tuple[Split, Split]]
) -> ImageData:
    """Return the dataset of a source, from the cache if possible.

    Args:
        name: the dataset's name; also the beginning of the file name.
        source: JSON-able facts that determine the decoded images (ids, options, file sizes and times).
        decode: makes the train and test splits if they are not cached.

    Raises:
        DataError: raised by ``decode``, or there is neither a home folder nor ``ISTHMUS_CACHE``.
    """
    path = _path(name, source)
    try:
        found = _read(path, name, classes)
    except (SafetensorError, OSError, KeyError, TypeError, DataError) as error:
        logger.warning("The cache file %s is corrupt (%s); decoding %s again.", path, error, name)
        found = None
    if found is not None:
        return found
    data = ImageData.of(name, *decode(), classes)
    try:
        _write(path, data)
    except FileError as error:
        logger.warning("%s is not cached and will be decoded again next time: %s", name, error)
    return data


def _path(name: str, source: Mapping[str, Any]) -> Path:
    key = sha256(json.dumps({"format": _FORMAT, **source}, sort_keys=True).encode())
    return folder() / f"{name}-{key[:20]}.safetensors"


def folder() -> Path:
    """The folder of the cache: ``ISTHMUS_CACHE``, or ``~/.cache/isthmus``."""
    given = os.environ.get("ISTHMUS_CACHE")
    try:
        return Path(given).expanduser() if given else Path.home() / ".cache" / "isthmus"
    except RuntimeError:
        raise DataError("There is no home folder to cache images in; set ISTHMUS_CACHE to a folder.") from None


def _read(path: Path, name: str, classes: tuple[str, ...]) -> ImageData | None:
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        fingerprint = file.metadata()["fingerprint"]
        train, test = (
            Split(file.get_tensor(f"{split}.images"), file.get_tensor(f"{split}.labels")) for split in ("train", "test")
        )
    data = ImageData.of(name, train, test, classes)
    if data.fingerprint != fingerprint:
        raise DataError("its bytes have changed since they were written")
    return data


def _write(path: Path, data: ImageData) -> None:
    tensors = {"train.images": data.train.images, "train.labels": data.train.labels}
    tensors |= {"test.images": data.test.images, "test.labels": data.test.labels}
    write_bytes(path, save(tensors, {"fingerprint": data.fingerprint, "name": ascii(data.name)}))
