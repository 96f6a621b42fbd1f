"""CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 small photographs, 3×32×32. Hub id ``uoft-cs/cifar10``."""

from __future__ import annotations

from typing import Literal

from isthmus.data import hub
from isthmus.data.images import ImageData

SOURCE = hub.Source(
    name="cifar10",
    hub_id="uoft-cs/cifar10",
    config="plain_text",
    image="img",
    label="label",
    channels=3,
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    known={
        "9c11408cdd506ed4ac6eb6bc93a4c28a32d167943813d3b29dc6f81c7754b884": "not the published images: each went once "
        "through JPEG at quality 75, and their order was shuffled",
    },
)


class Config(hub.HubConfig):
    """Options of cifar10."""

    name: Literal["cifar10"] = "cifar10"


def load(config: Config) -> ImageData:
    """Load cifar10 (see :func:`isthmus.data.hub.load`)."""
    return hub.load(SOURCE, config)
