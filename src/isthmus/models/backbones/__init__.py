"""Backbones: networks from images to features. Each file holds one, as a frozen class of its options.

Names are imported lazily: ``isthmus.models.backbones.WideResNet(depth=28)`` imports one file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.core.registry import lazy_attribute

if TYPE_CHECKING:
    from isthmus.models.backbones.basic_cnn import BasicCNN as BasicCNN
    from isthmus.models.backbones.conv import Conv as Conv
    from isthmus.models.backbones.lenet5 import LeNet5 as LeNet5
    from isthmus.models.backbones.mlp import MLP as MLP
    from isthmus.models.backbones.preact_resnet import PreActResNet as PreActResNet
    from isthmus.models.backbones.resnet import ResNet as ResNet
    from isthmus.models.backbones.strided_conv import StridedConv as StridedConv
    from isthmus.models.backbones.wide_resnet import WideResNet as WideResNet

_MODULES = {
    "BasicCNN": "basic_cnn",
    "Conv": "conv",
    "LeNet5": "lenet5",
    "MLP": "mlp",
    "PreActResNet": "preact_resnet",
    "ResNet": "resnet",
    "StridedConv": "strided_conv",
    "WideResNet": "wide_resnet",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _MODULES, name)


def __dir__() -> list[str]:
    return sorted(_MODULES)
