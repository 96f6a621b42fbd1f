"""Published test sets under distribution shift, for classifiers that were trained on something else.

Each set is a frozen class in its own file, imported lazily: ``isthmus.data.shift.CIFAR10C(corruption="fog",
severity=3)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.core.registry import lazy_attribute

if TYPE_CHECKING:
    from isthmus.data.shift.cifar10_1 import CIFAR10_1 as CIFAR10_1
    from isthmus.data.shift.cifar10_c import CIFAR10C as CIFAR10C
    from isthmus.data.shift.cifar100_c import CIFAR100C as CIFAR100C
    from isthmus.data.shift.imagenet_3dcc import ImageNet3DCC as ImageNet3DCC
    from isthmus.data.shift.imagenet_a import ImageNetA as ImageNetA
    from isthmus.data.shift.imagenet_c import ImageNetC as ImageNetC
    from isthmus.data.shift.imagenet_r import ImageNetR as ImageNetR
    from isthmus.data.shift.imagenet_v2 import ImageNetV2 as ImageNetV2

_MODULES = {
    "CIFAR100C": "cifar100_c",
    "CIFAR10C": "cifar10_c",
    "CIFAR10_1": "cifar10_1",
    "ImageNet3DCC": "imagenet_3dcc",
    "ImageNetA": "imagenet_a",
    "ImageNetC": "imagenet_c",
    "ImageNetR": "imagenet_r",
    "ImageNetV2": "imagenet_v2",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _MODULES, name)


def __dir__() -> list[str]:
    return sorted(_MODULES)
