"""MNIST (LeCun et al. 1998): 60,000 + 10,000 handwritten digits, 1×28×28. Hub id ``ylecun/mnist``."""

from __future__ import annotations

from typing import ClassVar, Literal

from isthmus.data.hub import HubDataset, Source


class MNIST(HubDataset):
    """MNIST: 1×28×28, 10 classes."""

    source: ClassVar[Source] = Source(
        name="mnist",
        hub_id="ylecun/mnist",
        config="mnist",
        image="image",
        label="label",
        channels=1,
        classes=tuple(str(digit) for digit in range(10)),
        known={"35914650c8beaeed4429263376775b71ac05b224ab7d958a603bb5feac95afaf": ""},
    )
    name: Literal["mnist"] = "mnist"
