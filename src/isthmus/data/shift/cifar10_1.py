"""CIFAR-10.1 (Recht, Roelofs, Schmidt & Shankar 2018): about 2,000 new test images for CIFAR-10, 3×32×32.

The files are those of the authors' repository: ``cifar10.1_v4_data.npy`` and ``cifar10.1_v4_labels.npy``, v6 likewise.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from isthmus.data.cifar10 import CIFAR10
from isthmus.data.images import Split
from isthmus.data.shift.files import read_images, read_labels
from isthmus.data.shift.shifted import Published, Shifted, ShiftedTestSet, relabelled

SIZES = {"v4": 2021, "v6": 2000}


class CIFAR10_1(ShiftedTestSet):
    """CIFAR-10.1.

    Attributes:
        version: "v6" has 200 images of each class and is recommended by the authors; "v4", which they tested first, has
            2,021 images and is slightly unbalanced. The CEB papers do not say which one they used.
    """

    published: ClassVar[Published] = Published(
        title="CIFAR-10.1",
        place="modestyachts/CIFAR-10.1/datasets",
        get="With a network, run `git clone https://github.com/modestyachts/CIFAR-10.1 "
        "MIRROR/modestyachts/CIFAR-10.1`.",
    )
    argument: ClassVar[str | None] = "version"

    name: Literal["cifar10_1"] = "cifar10_1"
    version: Literal["v4", "v6"] = "v6"

    def read(self, classes: tuple[str, ...] | None) -> Shifted:
        """One version of the set."""
        folder, size = self.folder(), SIZES[self.version]
        images = read_images(folder / f"cifar10.1_{self.version}_data.npy", size, self.published)
        own = CIFAR10.source.classes
        labels = read_labels(folder / f"cifar10.1_{self.version}_labels.npy", size, len(own), self.published)
        labels, classes = relabelled(labels, own, classes, self.published.title)
        return Shifted(
            name=f"cifar10_1, {self.version}",
            classes=classes,
            split=Split(images, labels),
            positions=torch.arange(size),
            published=size,
            examples=f"CIFAR-10.1 {self.version}",
        )
