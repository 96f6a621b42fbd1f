"""Datasets of the Hugging Face hub, or of a local mirror of it, read through the ``datasets`` library.

``ISTHMUS_DATA`` names a mirror: a folder with the layout of the hub,
``<org>/<name>/<config>/<split>-00000-of-00001.parquet``. If it is set, the network is not used.

Rows are streamed: the decoded tensors are cached (see :mod:`isthmus.data.cache`), so ``datasets`` need not keep a
second copy on disk.
"""

from __future__ import annotations

import glob
import logging
import os
from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from isthmus.core.errors import DataError, one_line
from isthmus.data.cache import cached
from isthmus.data.decode import Channels, encoded_image, need_pillow, pixels, progress, stacked
from isthmus.data.images import ImageData, Split
from isthmus.data.loading import ImageDataset

UNKNOWN = "from a mirror, and not recognised as the published data"
"""Note on data of a mirror whose fingerprint is not in :attr:`Source.known`."""
_ROWS = 500  # decoded between two updates of the progress bar


@dataclass(frozen=True)
class Source:
    """Location of a dataset on the hub, and the names of its columns.

    Attributes:
        name: the dataset's name in isthmus.
        hub_id: ``org/name`` on the hub.
        config: the hub's name for a variant of a dataset; a folder in its repository.
        image, label: the columns.
        channels: 1 for grey, 3 for RGB.
        train, test: hub splits that are concatenated to our two.
        known: :attr:`ImageData.note` of data with these fingerprints; "" for the published data.
    """

    name: str
    hub_id: str
    config: str
    image: str
    label: str
    channels: Channels
    classes: tuple[str, ...]
    train: tuple[str, ...] = ("train",)
    test: tuple[str, ...] = ("test",)
    known: Mapping[str, str] = field(default_factory=dict)


class HubDataset(ImageDataset, ABC):
    """A dataset of the hub.

    Attributes:
        source: where it is.
        revision: a commit, tag or branch of the hub's repository.
    """

    source: ClassVar[Source]
    revision: str | None = None

    @property
    def splits(self) -> Source:
        """The source with the hub splits that these options select."""
        return self.source

    def read(self) -> ImageData:
        """The dataset from the cache, otherwise from the mirror, otherwise from the hub.

        Raises:
            DataError: ``datasets`` is not installed, the mirror lacks the data or holds a corrupt file, an image or a
                label cannot be used, or the hub cannot be reached (the message says how to use a mirror).
        """
        source, mirror = self.splits, os.environ.get("ISTHMUS_DATA")
        origin = _mirrored(source, self.revision, Path(mirror).expanduser()) if mirror else _Hub(source, self.revision)

        def decode() -> tuple[Split, Split]:
            return _decoded(origin, source.train), _decoded(origin, source.test)

        facts = {"hub": source.hub_id, "config": source.config, "splits": [source.train, source.test]}
        data = cached(source.name, source.classes, facts | origin.facts(), decode)
        unknown = UNKNOWN if mirror else ""
        return replace(data, note=source.known.get(data.fingerprint, unknown))


@dataclass(frozen=True)
class _Hub:
    """The hub itself."""

    source: Source
    revision: str | None

    def facts(self) -> dict[str, Any]:
        return {"revision": self.revision}

    def open(self, split: str) -> Any:
        source = self.source
        options = {"split": split, "revision": self.revision, "streaming": True}
        return library().load_dataset(source.hub_id, source.config, **options)

    def complaint(self, split: str, reason: str) -> str:
        return (
            f"Cannot get {self.source.hub_id} (config {self.source.config}, split {split}) from the "
            f"Hugging Face hub: {reason}. {_how_to_mirror(self.source)}."
        )


@dataclass(frozen=True)
class _Mirror:
    """The parquet files of each split in a mirror, with their sizes and times."""

    source: Source
    files: dict[str, list[Path]]
    stats: list[list[Any]]

    def facts(self) -> dict[str, Any]:
        return {"files": self.stats}

    def open(self, split: str) -> Any:
        paths = {split: [glob.escape(str(file)) for file in self.files[split]]}
        options = {"data_files": paths, "split": split, "streaming": True}
        # datasets leaves a lock file for each path it ever read; they would pile up in the user's hub cache.
        with TemporaryDirectory() as scratch:
            return library().load_dataset("parquet", cache_dir=scratch, **options)

    def complaint(self, split: str, reason: str) -> str:
        read = ", ".join(str(file) for file in self.files[split])
        return f"Cannot read {read}: {reason}. If a file is corrupt, copy it again."


def _mirrored(source: Source, revision: str | None, mirror: Path) -> _Mirror:
    if revision is not None:
        raise DataError(
            f"revision={revision!r} cannot be chosen from the mirror ISTHMUS_DATA={mirror}, which "
            "holds only one; unset ISTHMUS_DATA to use the hub, or leave revision out."
        )
    folder = mirror / source.hub_id / source.config
    files = {split: _shards(folder, split, source) for split in (*source.train, *source.test)}
    try:
        found = [(file.name, file.stat()) for split in files for file in files[split]]
    except OSError as error:  # such as links that were copied without what they point to
        raise DataError(f"Cannot read the mirror: {error}.") from None
    return _Mirror(source, files, [[name, status.st_size, status.st_mtime_ns] for name, status in found])


def _shards(folder: Path, split: str, source: Source) -> list[Path]:
    files = sorted(folder.glob(f"{split}-*-of-*.parquet"))
    if not files:
        raise DataError(
            f"The mirror has no {folder}/{split}-00000-of-00001.parquet. {_how_to_mirror(source)}; "
            "or unset ISTHMUS_DATA to use the hub."
        )
    expected = [f"{split}-{k:05d}-of-{len(files):05d}.parquet" for k in range(len(files))]
    if [file.name for file in files] != expected:
        found = ", ".join(file.name for file in files)
        raise DataError(
            f"The shards of {folder}/{split} are not complete: there is {found}. "
            "Copy the missing ones, and remove those of another sharding."
        )
    return files


def _how_to_mirror(source: Source) -> str:
    name = source.hub_id
    return (
        f"To fill a mirror, run `hf download {name} --repo-type dataset --local-dir MIRROR/{name}` "
        "where there is a network, and set ISTHMUS_DATA=MIRROR "
        "(layout: <org>/<name>/<config>/<split>-00000-of-00001.parquet)"
    )


def library() -> Any:
    """The library ``datasets``.

    Raises:
        DataError: it is not installed; the message says how to install it.
    """
    need_pillow()
    try:
        import datasets
    except ImportError as error:
        need = "Hub datasets need the package datasets"
        raise DataError(f"{need} ({error}): pip install 'isthmus[hub]'") from None
    # It logs a file that it cannot read, and then raises the same message, which we pass on.
    logging.getLogger("datasets.packaged_modules.parquet.parquet").setLevel(logging.CRITICAL)
    return datasets


def _decoded(origin: _Hub | _Mirror, splits: tuple[str, ...]) -> Split:
    source = origin.source
    images, labels = [], []
    for split in splits:
        with progress(f"decoding {source.name}/{split}", None) as advance:
            for index, (cell, label) in enumerate(_rows(origin, split)):
                where = f"{source.hub_id}, split {split}: row {index}"
                images.append(pixels(encoded_image(cell, where), source.channels, where))
                labels.append(_class(label, where))
                if index % _ROWS == _ROWS - 1:
                    advance(_ROWS)
    if not images:
        raise DataError(f"{source.hub_id}: split {' + '.join(splits)} has no rows.")
    return stacked(images, labels, lambda i: f"{source.hub_id}, image {i}", "all must be of one size")


def _rows(origin: _Hub | _Mirror, split: str) -> Iterator[tuple[Any, Any]]:
    """Pairs of an undecoded image and its label."""
    source = origin.source
    try:
        table = origin.open(split)
        columns = table.column_names
        if columns is not None and not {source.image, source.label} <= set(columns):
            raise DataError(
                f"{source.hub_id}, split {split} has the columns {', '.join(columns)}; "
                f"expected {source.image} and {source.label}."
            )
        table = table.cast_column(source.image, library().Image(decode=False))
        for batch in table.iter(batch_size=_ROWS):
            yield from zip(batch[source.image], batch[source.label], strict=True)
    except DataError:
        raise
    except Exception as error:  # whatever parquet, the file system, HTTP and the hub's client raise
        reason = f"{type(error).__name__}: {one_line(error)}".rstrip(".")
        raise DataError(origin.complaint(split, reason)) from error


def _class(label: Any, where: str) -> int:
    if not isinstance(label, int):
        raise DataError(f"{where} has the label {label!r}; expected a class index.")
    return label
