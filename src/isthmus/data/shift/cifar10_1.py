"""CIFAR-10.1 (Recht, Roelofs, Schmidt & Shankar 2018): about 2,000 new test images for CIFAR-10, 3×32×32.

The files are those of the authors' repository: ``cifar10.1_v4_data.npy`` and ``cifar10.1_v4_labels.npy``, v6 likewise.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from isthmus.data import cifar10
from isthmus.data.images import Split
from isthmus.data.shift import arrays
from isthmus.data.shift.loading import Published, ShiftConfig, limited, located, relabelled
from isthmus.data.shift.testset import Shifted

PUBLISHED = Published(
    title="CIFAR-10.1",
    place="modestyachts/CIFAR-10.1/datasets",
    get="Where there is a network, run `git clone https://github.com/modestyachts/CIFAR-10.1 "
    "MIRROR/modestyachts/CIFAR-10.1`.",
)
SIZES = {"v4": 2021, "v6": 2000}


class Config(ShiftConfig):
    """``version`` "v6" has 200 images of each class, and is what the authors recommend; "v4" is what they tested first,
    2,021 images and not quite balanced. The CEB papers do not say which one they used.
    """

    argument: ClassVar[str | None] = "version"

    name: Literal["cifar10_1"] = "cifar10_1"
    version: Literal["v4", "v6"] = "v6"


def load(config: Config, classes: tuple[str, ...] | None) -> Shifted:
    """Load one version (see :func:`isthmus.data.shift.loading.load`)."""
    folder, size = located(config, PUBLISHED), SIZES[config.version]
    images = arrays.images(folder / f"cifar10.1_{config.version}_data.npy", size, PUBLISHED)
    own = cifar10.SOURCE.classes
    labels = arrays.labels(folder / f"cifar10.1_{config.version}_labels.npy", size, len(own), PUBLISHED)
    labels, classes = relabelled(labels, own, classes, PUBLISHED.title)
    shifted = Shifted(
        name=f"cifar10_1, {config.version}",
        classes=classes,
        split=Split(images, labels),
        positions=torch.arange(size),
        published=size,
        examples=f"CIFAR-10.1 {config.version}",
    )
    return limited(shifted, config)
