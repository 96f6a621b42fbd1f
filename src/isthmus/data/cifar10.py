"""CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 small photographs, 3×32×32. Hub id ``uoft-cs/cifar10``."""

from __future__ import annotations

from typing import ClassVar, Literal

from isthmus.data.hub import HubDataset, Source


class CIFAR10(HubDataset):
    """CIFAR-10: 3×32×32, 10 classes."""

    source: ClassVar[Source] = Source(
        name="cifar10",
        hub_id="uoft-cs/cifar10",
        config="plain_text",
        image="img",
        label="label",
        channels=3,
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        known={
            "9c11408cdd506ed4ac6eb6bc93a4c28a32d167943813d3b29dc6f81c7754b884": "not the published images: each went "
            "once through JPEG at quality 75, and their order was shuffled",
        },
    )
    name: Literal["cifar10"] = "cifar10"
