"""Data sets of the Hugging Face hub, or of a local mirror of it, read through the ``datasets`` library.

``ISTHMUS_DATA`` names a mirror: a folder with the hub's own layout,
``<org>/<name>/<config>/<split>-00000-of-00001.parquet``. Where it is set, nothing is asked of the network.

Rows are streamed: the decoded tensors are cached (see :mod:`isthmus.data.cache`), so a second copy kept by
``datasets`` would only fill the disk.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from isthmus.core.errors import DataError, one_line
from isthmus.data.cache import cached
from isthmus.data.decode import Channels, need_pillow, pixels, progress, stacked
from isthmus.data.images import ImageData, Split
from isthmus.data.loading import DataConfig, limited

UNKNOWN = "from a mirror, and not recognised as the published data"
"""The note on data of a mirror whose fingerprint is none of :attr:`Source.known`."""
_ROWS = 500  # decoded between two updates of the progress bar


class HubConfig(DataConfig):
    """Options of every hub data set: ``revision`` is a commit, tag or branch of the hub's repository."""

    revision: str | None = None


@dataclass(frozen=True)
class Source:
    """Where on the hub a data set is, and what its columns are called.

    Attributes:
        name: the data set's name in isthmus.
        hub_id: ``org/name`` on the hub.
        config: the hub's word for a variant of a data set; a folder in its repository.
        image, label: the columns.
        channels: 1 for grey, 3 for RGB.
        train, test: hub splits that make up our two, one after another.
        known: what is known of data with these fingerprints, as :attr:`ImageData.note`; "" for the published ones.
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


def load(source: Source, config: HubConfig) -> ImageData:
    """Load a hub data set: from the cache, else from the mirror, else from the hub.

    Raises:
        DataError: ``datasets`` is not installed, the mirror lacks the data or holds a corrupt file, an image
            or a label cannot be used, or the hub cannot be reached (says how to use a mirror).
    """
    mirror = os.environ.get("ISTHMUS_DATA")
    origin = _mirrored(source, config, Path(mirror).expanduser()) if mirror else _Hub(source, config.revision)

    def decode() -> tuple[Split, Split]:
        return _decoded(origin, source.train), _decoded(origin, source.test)

    facts = {"hub": source.hub_id, "config": source.config, "splits": [source.train, source.test]}
    data = cached(source.name, source.classes, facts | origin.facts(), decode)
    unknown = UNKNOWN if mirror else ""
    return limited(replace(data, note=source.known.get(data.fingerprint, unknown)), config)


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


def _mirrored(source: Source, config: HubConfig, mirror: Path) -> _Mirror:
    if config.revision is not None:
        raise DataError(
            f"revision={config.revision!r} cannot be chosen from the mirror ISTHMUS_DATA={mirror}, which "
            "holds only one; unset ISTHMUS_DATA to ask the hub, or leave revision out."
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
            "or unset ISTHMUS_DATA to ask the hub."
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
    """``datasets``, where it is installed.

    Raises:
        DataError: it is not; says how to install it.
    """
    need_pillow()
    try:
        import datasets
    except ImportError as error:
        need = "Hub data sets need the package datasets"
        raise DataError(f"{need} ({error}): pip install 'isthmus[hub]'") from None
    # It logs a file it cannot read, and then raises the same words, which we pass on.
    logging.getLogger("datasets.packaged_modules.parquet.parquet").setLevel(logging.CRITICAL)
    return datasets


def _decoded(origin: _Hub | _Mirror, splits: tuple[str, ...]) -> Split:
    source = origin.source
    images, labels = [], []
    for split in splits:
        with progress(f"decoding {source.name}/{split}", None) as advance:
            for index, (cell, label) in enumerate(_rows(origin, split)):
                where = f"{source.hub_id}, split {split}: row {index}"
                images.append(pixels(_content(cell, where), source.channels, where))
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


def _content(cell: Any, where: str) -> BytesIO:
    content = cell.get("bytes") if isinstance(cell, dict) else None
    if not isinstance(content, bytes):
        raise DataError(f"{where} holds no image.")
    return BytesIO(content)


def _class(label: Any, where: str) -> int:
    if not isinstance(label, int):
        raise DataError(f"{where} has the label {label!r}; expected a class index.")
    return label
