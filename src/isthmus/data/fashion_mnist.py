"""Fashion-MNIST (Xiao et al. 2017): 60,000 + 10,000 pictures of clothing, 1×28×28.

Hub id ``zalando-datasets/fashion_mnist``.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from isthmus.data.hub import HubDataset, Source


class FashionMNIST(HubDataset):
    """Fashion-MNIST: 1×28×28, 10 classes."""

    source: ClassVar[Source] = Source(
        name="fashion_mnist",
        hub_id="zalando-datasets/fashion_mnist",
        config="fashion_mnist",
        image="image",
        label="label",
        channels=1,
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        known={"c2df23e9d135ade7af62bf6273886728f606f79e67e066d2485f52ee9d597534": ""},
    )
    name: Literal["fashion_mnist"] = "fashion_mnist"
