"""Datasets, decoded to bytes and served in batches. Each dataset is a frozen class in its own file.

Names are imported lazily: ``isthmus.data.Digits()`` imports one file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.core.registry import lazy_attribute

if TYPE_CHECKING:
    from isthmus.data.cifar10 import CIFAR10 as CIFAR10
    from isthmus.data.cifar100 import CIFAR100 as CIFAR100
    from isthmus.data.digits import Digits as Digits
    from isthmus.data.fashion_mnist import FashionMNIST as FashionMNIST
    from isthmus.data.folder import ImageFolder as ImageFolder
    from isthmus.data.imagenet import ImageNet as ImageNet
    from isthmus.data.mnist import MNIST as MNIST
    from isthmus.data.parquet import ParquetImages as ParquetImages
    from isthmus.data.svhn import SVHN as SVHN

_MODULES = {
    "CIFAR10": "cifar10",
    "CIFAR100": "cifar100",
    "Digits": "digits",
    "FashionMNIST": "fashion_mnist",
    "ImageFolder": "folder",
    "ImageNet": "imagenet",
    "MNIST": "mnist",
    "ParquetImages": "parquet",
    "SVHN": "svhn",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _MODULES, name)


def __dir__() -> list[str]:
    return sorted(_MODULES)
