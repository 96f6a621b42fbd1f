"""CIFAR-10-C (Hendrycks & Dietterich 2019): CIFAR-10's test images under a corruption at a severity, 3×32×32.

The files are those of the published archive: ``<corruption>.npy`` holds severities 1 to 5 one after another, 10,000
images each, and ``labels.npy`` their labels. A file is mapped, and one severity of it read, 31 MB.
"""

from __future__ import annotations

from typing import Literal

import torch

from isthmus.core.errors import DataError
from isthmus.core.files import sha256
from isthmus.data import cifar10
from isthmus.data.images import Split
from isthmus.data.shift import arrays
from isthmus.data.shift.corruptions import CorruptionConfig
from isthmus.data.shift.loading import Published, limited, located, relabelled
from isthmus.data.shift.testset import Shifted
from isthmus.metrics.corruption import SEVERITIES

PUBLISHED = Published(
    title="CIFAR-10-C",
    place="hendrycks/CIFAR-10-C",
    get="Unpack CIFAR-10-C.tar of https://zenodo.org/records/2535967 in MIRROR/hendrycks.",
)
SIZE = 10_000


class Config(CorruptionConfig):
    """One ``corruption`` at one ``severity``."""

    name: Literal["cifar10_c"] = "cifar10_c"


def load(config: Config, classes: tuple[str, ...] | None) -> Shifted:
    """Load one corruption at one severity (see :func:`isthmus.data.shift.loading.load`).

    Raises:
        DataError: also where the five severities do not have the same labels.
    """
    folder, total = located(config, PUBLISHED), SIZE * len(SEVERITIES)
    rows = slice((config.severity - 1) * SIZE, config.severity * SIZE)
    images = arrays.images(folder / f"{config.corruption}.npy", total, PUBLISHED, rows)
    own = cifar10.SOURCE.classes
    every = arrays.labels(folder / "labels.npy", total, len(own), PUBLISHED)
    # outcomes are paired over severities, image by image
    if not (every.view(len(SEVERITIES), SIZE) == every[:SIZE]).all():
        raise DataError(f"{folder / 'labels.npy'} does not hold the same {SIZE:,} labels for each severity.")
    labels, classes = relabelled(every[:SIZE], own, classes, PUBLISHED.title)
    shifted = Shifted(
        name=f"cifar10_c, {config.corruption}, severity {config.severity}",
        classes=classes,
        split=Split(images, labels),
        positions=torch.arange(SIZE),
        published=SIZE,
        examples=f"CIFAR-10-C {sha256(every[:SIZE].numpy())}",
    )
    return limited(shifted, config)
