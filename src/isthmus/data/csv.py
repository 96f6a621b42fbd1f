"""``csv:PATH``: images of a user, listed in a table of paths and labels."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from isthmus.core.errors import DataError
from isthmus.data.cache import cached
from isthmus.data.folder import DecodedImages, Labelled, natural
from isthmus.data.images import ImageData, Split
from isthmus.data.loading import folder_at

_PATHS = ("path", "image", "file", "filename", "file_name")
_LABELS = ("label", "class", "target")


class ImageTable(DecodedImages):
    """Images whose paths and labels are the rows of a CSV file with a header.

    The columns are ``path`` (also ``image``, ``file``, ``filename`` or ``file_name``), relative to the CSV file;
    ``label`` (also ``class`` or ``target``); and, if there are training images, ``split``: "train" or "test". Labels
    are numbered in natural order (2 before 10), or in that of the option ``classes``.
    """

    argument: ClassVar[str | None] = "path"

    name: Literal["csv"] = "csv"

    def read(self) -> ImageData:
        """The images of the table.

        Raises:
            DataError: the file or an image is missing or unreadable, a column or a value is missing, or images have
                different sizes and there is no option ``size``.
        """
        table = folder_at(self.path)
        rows = _rows(table)
        classes = tuple(sorted({label for _, label, _ in rows}, key=natural))
        splits: dict[str, Labelled] = {"train": [], "test": []}
        for path, label, split in rows:
            splits[split].append((table.parent / path, classes.index(label)))
        if not splits["test"]:
            raise DataError(f"{table} has no row whose split is 'test'.")
        test_only = not splits["train"]
        if test_only:  # one of each class defines the shape
            splits["train"] = [next(each for each in splits["test"] if each[1] == k) for k in range(len(classes))]
        train, test = splits["train"], splits["test"]

        def decode() -> tuple[Split, Split]:
            both = self.decoded([*train, *test])
            positions = torch.arange(len(both))
            return both.select(positions[: len(train)]), both.select(positions[len(train) :])

        try:
            source = self._facts(table, train, test)
        except OSError as error:
            raise DataError(f"Cannot read an image of {table}: {error}.") from None
        data = cached(f"csv-{table.stem[:40]}", classes, source, decode)
        return replace(data, test_only=test_only)

    def _facts(self, table: Path, *splits: Labelled) -> Mapping[str, Any]:
        listed = [[[str(f), f.stat().st_size, f.stat().st_mtime_ns, label] for f, label in half] for half in splits]
        return {"csv": str(table), "size": self.size, "channels": self.channels, "files": listed}


def _rows(table: Path) -> list[tuple[str, str, str]]:
    """Path, label and split of each row."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            path, label = _column(table, header, _PATHS), _column(table, header, _LABELS)
            rows = [(row[path], row[label], row.get("split") or "test") for row in reader]
    except FileNotFoundError:
        raise DataError(f"There is no file {table}.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} is not a readable CSV file in UTF-8: {error}.") from None
    if not rows:
        raise DataError(f"{table} has a header and no rows.")
    for number, (path, label, split) in enumerate(rows, start=2):
        if not path or not label:
            raise DataError(f"Line {number} of {table} has no {'label' if path else 'path'}.")
        if split not in ("train", "test"):
            raise DataError(f"Line {number} of {table}: a split is 'train' or 'test'; got {split!r}.")
    return rows


def _column(table: Path, header: list[str] | Any, names: tuple[str, ...]) -> str:
    for name in names:
        if name in header:
            return name
    raise DataError(f"{table} has no column {names[0]!r}; its header is {', '.join(header) or 'empty'}.")
