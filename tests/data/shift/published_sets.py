"""Small copies of the published files, with their contents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def cifar10_1(folder: Path, version: str = "v4", seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random images and labels as the two files of a version; gives both."""
    count = {"v4": 2021, "v6": 2000}[version]
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = random.integers(0, 10, count).astype(np.int32)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"cifar10.1_{version}_data.npy", images)
    np.save(folder / f"cifar10.1_{version}_labels.npy", labels)
    return images, labels


def cifar10_c(folder: Path, corruption: str, written: int = 20) -> np.ndarray:
    """A file of the published size, empty (sparse on disk) but for the first ``written`` images of each severity.

    The bytes of image i at severity s are 10·i + s modulo 255, one more in the last channel; its label is i modulo 10.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shape = (50_000, 32, 32, 3)
    file = np.lib.format.open_memmap(folder / f"{corruption}.npy", mode="w+", dtype=np.uint8, shape=shape)
    for severity in range(1, 6):
        start = 10_000 * (severity - 1)
        values = (10 * np.arange(written) + severity) % 255
        file[start : start + written] = values[:, None, None, None]
        file[start : start + written, ..., 2] += 1
    file.flush()
    labels = np.tile(np.arange(10_000) % 10, 5).astype(np.uint8)
    np.save(folder / "labels.npy", labels)
    return labels


def photographs(folder: Path, wnid: str, sizes: list[tuple[int, int]], seed: int = 0, suffix: str = "JPEG") -> None:
    """Files of a class, one for each (width, height), coarse so that JPEG keeps them nearly as they are."""
    random = np.random.default_rng([seed, int(wnid[1:])])
    (folder / wnid).mkdir(parents=True, exist_ok=True)
    for index, (width, height) in enumerate(sizes):
        coarse = Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8))
        name = f"ILSVRC2012_val_{index:08d}.{suffix}"
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / wnid / name, quality=95)
