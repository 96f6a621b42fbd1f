"""Small data sets that the tests make, and the mirror of real ones if it exists."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from isthmus.data.images import ImageData, Split


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test; nothing is read from or left in the user's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ISTHMUS_CACHE", str(folder))
    monkeypatch.delenv("ISTHMUS_DATA", raising=False)
    return folder


@pytest.fixture(scope="session")
def real_mirror() -> Path:
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    mirror = Path(os.environ.get("ISTHMUS_DATA") or beside)
    if not mirror.is_dir():
        pytest.skip("no mirror of the hub's data: set ISTHMUS_DATA, or put one at ../shared/data")
    return mirror


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def png() -> Callable[..., bytes]:
    return encoded


@pytest.fixture
def pictures() -> Callable[..., np.ndarray]:
    """Random images, n × height × width × channels (no last axis for grey)."""

    def make(n: int, *shape: int, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)

    return make


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write one split of a tiny mirror, and point ISTHMUS_DATA at it."""

    def write(
        place: str,
        split: str,
        images: Sequence[bytes | None],
        labels: Sequence[object],
        column: str = "image",
        shard: tuple[int, int] = (0, 1),
    ) -> Path:
        cells = [None if image is None else {"bytes": image, "path": None} for image in images]
        struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        table = pyarrow.table({column: pyarrow.array(cells, struct), "label": pyarrow.array(list(labels))})
        file = tmp_path / "mirror" / place / f"{split}-{shard[0]:05d}-of-{shard[1]:05d}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(table, file)
        monkeypatch.setenv("ISTHMUS_DATA", str(tmp_path / "mirror"))
        return file

    return write


@pytest.fixture
def tiny() -> ImageData:
    """Three classes of 2×5×4 noise: 30 to train on and 9 to test on."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (39, 2, 5, 4), dtype=torch.uint8, generator=generator)
    labels = torch.arange(39) % 3
    return ImageData.of("tiny", Split(images[:30], labels[:30]), Split(images[30:], labels[30:]), ("a", "b", "c"))
