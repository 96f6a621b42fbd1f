"""ResNets of 50 layers and more for large images (He et al. 2016a), as CEB uses on ImageNet (Fischer & Alemi 2020).

A stem of 7×7 with 64 channels and max pooling, then four stages of blocks of 1×1, 3×3 and 1×1 convolutions with 256,
512, 1024 and 2048 channels, batch normalisation after every convolution, and global average pooling. The second to
fourth stage halve height and width in the 3×3 of their first block, as torchvision and the TPU implementation behind
the paper do ("v1.5"); He et al. halve in the 1×1 before it.

Parameters without a head: 23.51, 42.50 and 58.14 million at depth 50, 101 and 152, and 93.91, 169.77 and 232.25 million
with all layers twice as wide.

Parameters and buffers are named as in torchvision's resnet50, resnet101 and resnet152, whose weights load without
their head, ``fc.weight`` and ``fc.bias``. They expect images normalised by ImageNet's means and standard
deviations. torchvision's wide_resnet50_2 is a different network: it widens only the 3×3 convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import relu

from isthmus.models.backbones.backbone import Backbone
from isthmus.models.backbones.layers import conv1x1, conv3x3, he_

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_STEM = 64
_EXPANSION = 4  # a block gives this many times the channels of its 3×3 convolution


class ResNet(Backbone):
    """Depth, and ``width`` times the usual channels in every layer: 2 makes the paper's "50x2" and "152x2".

    Attributes:
        zero_init: the scale of each block's last batch normalisation starts at 0, so that a block starts as its
            shortcut (Goyal et al. 2017); as in the paper's implementation; torchvision starts at 1.
    """

    name: Literal["resnet"] = "resnet"
    depth: Literal[50, 101, 152] = 50
    width: Annotated[int, Field(gt=0)] = 1
    zero_init: bool = True

    def build(self, shape: tuple[int, int, int]) -> ResNetModule:
        """The network for images of ``shape`` (channels, height, width); it has 2048·width features."""
        return ResNetModule(shape[0], _BLOCKS[self.depth], self.width, self.zero_init)


class PostActivationBlock(nn.Module):
    """relu(x + F(x)), F three convolutions: 1×1 down to ``width`` channels, 3×3, and 1×1 up to 4·width.

    If the shape changes, the shortcut is a 1×1 convolution with batch normalisation. torchvision calls this block
    a bottleneck.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = _EXPANSION * width
        self.conv1, self.bn1 = conv1x1(inputs, width), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv3x3(width, width, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv1x1(width, outputs), nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Float[Tensor, "n inputs h w"]) -> Float[Tensor, "n outputs h2 w2"]:
        """The block's output."""
        straight = x if self.downsample is None else self.downsample(x)
        maps = relu(self.bn1(self.conv1(x)))
        maps = relu(self.bn2(self.conv2(maps)))
        return relu(straight + self.bn3(self.conv3(maps)))


def stage(inputs: int, width: int, stride: int, blocks: int) -> nn.Sequential:
    """Blocks of one resolution; the first takes ``inputs`` channels to 4·width and divides the resolution."""
    return nn.Sequential(
        PostActivationBlock(inputs, width, stride),
        *(PostActivationBlock(_EXPANSION * width, width, 1) for _ in range(blocks - 1)),
    )


class ResNetModule(nn.Module):
    """Stem, four stages and global average pooling: images to ``features`` numbers.

    Args:
        blocks: per stage.
        width: times the usual channels.
        zero_init: see :class:`ResNet`.
    """

    def __init__(self, channels: int, blocks: Sequence[int], width: int = 1, zero_init: bool = True) -> None:
        super().__init__()
        k = _STEM * width
        self.conv1 = nn.Conv2d(channels, k, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(k)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = stage(k, k, 1, blocks[0])
        self.layer2 = stage(4 * k, 2 * k, 2, blocks[1])
        self.layer3 = stage(8 * k, 4 * k, 2, blocks[2])
        self.layer4 = stage(16 * k, 8 * k, 2, blocks[3])
        self.features = 32 * k
        he_(self)
        if zero_init:
            for block in self.modules():
                if isinstance(block, PostActivationBlock):
                    nn.init.zeros_(block.bn3.weight)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n features"]:
        """Features of normalised images."""
        maps = self.maxpool(relu(self.bn1(self.conv1(images))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        features: Tensor = maps.mean(dim=(2, 3))
        return features
