"""Estimates as lines, points and rows, pictures in records: what the pages of studies are drawn with."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Literal

import numpy as np

from isthmus.core.types import Metric, Series
from isthmus.studies.old.evidence import Estimate, share

Value = str | float | Metric | None
Row = tuple[Value, ...]


def band(name: str, x: Sequence[float], values: Sequence[Estimate]) -> Series:
    """A line of means with their intervals."""
    return _series(name, x, values, "line")


def dots(name: str, x: Sequence[float], counts: Sequence[int], n: int) -> Series:
    """One point for each model, with the Wilson interval of its images."""
    return _series(name, x, [share([count], n) for count in counts], "points")


def _series(name: str, x: Sequence[float], values: Sequence[Estimate], style: Literal["line", "points"]) -> Series:
    y, low, high = (tuple(getattr(one, part) for one in values) for part in ("value", "low", "high"))
    return Series(name, tuple(x), y, low, high, style=style, group=name)


def packed(image: np.ndarray) -> str:
    """A picture's bytes, uint8, as text that a record can hold; :func:`unpacked` gives it back."""
    file = io.BytesIO()
    np.lib.format.write_array(file, image, allow_pickle=False)
    return base64.b64encode(file.getvalue()).decode("ascii")


def unpacked(text: str) -> np.ndarray:
    """The picture that :func:`packed` made a text of.

    Raises:
        ValueError: the text is not that of a picture.
    """
    file = io.BytesIO(base64.b64decode(text, validate=True))
    image: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return image
