"""Random textures in the folders of ImageNet, ImageNet-C and ImageNet-A, for a dry run without a download.

A class is a direction and a colour of stripes. Corruptions are noise of growing strength, and ImageNet-A has fainter
stripes. Numbers measured on textures say nothing about the real sets.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.metrics.corruption import CORRUPTIONS, SEVERITIES

CLASSES = ("n00000001", "n00000002", "n00000003", "n00000004")
TRAIN, TEST, HARD = 24, 4, 4
"""Images of each class: for training, for tests (and each corruption), and in place of ImageNet-A."""


def make(folder: Path, size: int) -> Path:
    """The textures below ``folder``, made if they are missing, with the same pixels every time.

    Args:
        size: height and width of the images in place of ImageNet-C's; the others are a quarter larger.

    Returns:
        A folder with ``train``, ``val``, ``imagenet-c`` and ``imagenet-a``.

    Raises:
        DataError: Pillow is not installed.
    """
    from isthmus.data.decode import need_pillow

    need_pillow()
    place = folder / f"textures-{size}"
    if place.is_dir():
        return place
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".textures-", dir=folder))
    try:
        _fill(unfinished, size)
        os.replace(unfinished, place)  # atomic
    except OSError:
        if not place.is_dir():  # otherwise another process has made them
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return place


def _fill(root: Path, size: int) -> None:
    rng = np.random.default_rng(1906)
    large = size + size // 4
    for label, name in enumerate(CLASSES):
        for part, count in (("train", TRAIN), ("val", TEST)):
            for number in range(count):
                _save(root / part / name / f"{number:03}.JPEG", texture(rng, label, large))
        for number in range(HARD):
            _save(root / "imagenet-a" / name / f"{number:03}.jpg", texture(rng, label, large, contrast=0.15))
        for number in range(TEST):
            image = texture(rng, label, size)
            for corruption in CORRUPTIONS:
                for severity in SEVERITIES:
                    noisy = image + rng.normal(0, 12.0 * severity, image.shape)
                    _save(root / "imagenet-c" / corruption / str(severity) / name / f"{number:03}.JPEG", noisy)


def texture(rng: np.random.Generator, label: int, size: int, contrast: float = 0.6) -> np.ndarray:
    """Stripes of a class with a random phase and width, and some noise: size × size × 3, about 0 to 255."""
    y, x = np.mgrid[:size, :size] / size
    angle = np.pi * label / len(CLASSES)
    waves = np.sin(2 * np.pi * (rng.uniform(3, 5) * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform()))
    colour = 1 + contrast * np.cos(2 * np.pi * (label / len(CLASSES) + np.arange(3) / 3))
    mean = 128 * (1 + 0.5 * contrast * waves[:, :, None]) * colour
    return np.asarray(mean + rng.normal(0, 10, mean.shape), dtype=np.float64)


def _save(file: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    file.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"quality": 90}
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, **options)
