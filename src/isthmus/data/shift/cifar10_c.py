"""CIFAR-10-C (Hendrycks & Dietterich 2019): CIFAR-10's test images under a corruption at a severity, 3×32×32.

The files are those of the published archive: ``<corruption>.npy`` holds severities 1 to 5 one after another, 10,000
images each, and ``labels.npy`` their labels. Of a file, only one severity is read, 31 MB.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from isthmus.core.errors import DataError
from isthmus.core.files import sha256
from isthmus.data.cifar10 import CIFAR10
from isthmus.data.images import Split
from isthmus.data.shift.files import read_images, read_labels
from isthmus.data.shift.shifted import CorruptedTestSet, Published, Shifted, relabelled
from isthmus.metrics.corruption import SEVERITIES

SIZE = 10_000


class NumpyCorruptions(CorruptedTestSet):
    """Base of CIFAR-10-C and CIFAR-100-C.

    Attributes:
        own_classes: names of the set's classes in the order of its labels.
    """

    own_classes: ClassVar[tuple[str, ...]]

    def read(self, classes: tuple[str, ...] | None) -> Shifted:
        """One corruption at one severity.

        Raises:
            DataError: also if the five severities have different labels.
        """
        folder, total = self.folder(), SIZE * len(SEVERITIES)
        rows = slice((self.severity - 1) * SIZE, self.severity * SIZE)
        images = read_images(folder / f"{self.corruption}.npy", total, self.published, rows)
        own = self.own_classes
        every = read_labels(folder / "labels.npy", total, len(own), self.published)
        # outcomes are paired over severities, image by image
        if not (every.view(len(SEVERITIES), SIZE) == every[:SIZE]).all():
            raise DataError(f"{folder / 'labels.npy'} does not hold the same {SIZE:,} labels for each severity.")
        labels, classes = relabelled(every[:SIZE], own, classes, self.published.title)
        return Shifted(
            name=f"{self.name}, {self.corruption}, severity {self.severity}",
            classes=classes,
            split=Split(images, labels),
            positions=torch.arange(SIZE),
            published=SIZE,
            examples=f"{self.published.title} {sha256(every[:SIZE].numpy())}",
        )


class CIFAR10C(NumpyCorruptions):
    """One ``corruption`` at one ``severity``."""

    own_classes: ClassVar[tuple[str, ...]] = CIFAR10.source.classes
    published: ClassVar[Published] = Published(
        title="CIFAR-10-C",
        place="hendrycks/CIFAR-10-C",
        get="Unpack CIFAR-10-C.tar of https://zenodo.org/records/2535967 in MIRROR/hendrycks.",
    )
    name: Literal["cifar10_c"] = "cifar10_c"
