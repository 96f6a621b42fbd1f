"""Two strided convolutions with batch normalisation, then fully connected layers: the network of Guess First
(arXiv 2001.03311, appendix F).

On MNIST the convolutions give 64 maps of 7×7. With ``hidden`` empty these 3,136 numbers are the features, for a
classifier whose fully connected layers are conditioned on label hypotheses.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from isthmus.models.backbones.backbone import Backbone
from isthmus.models.backbones.layers import Chain, check_halved_twice, glorot_
from isthmus.models.backbones.mlp import mlp

Width = Annotated[int, Field(gt=0)]


class StridedConv(Backbone):
    """``widths`` are the channels of the convolutions, ``hidden`` those of the fully connected layers after them.

    The number of features is the last of ``hidden``, or the size of the flattened maps if it is empty.
    """

    name: Literal["strided_conv"] = "strided_conv"
    widths: tuple[Width, Width] = (32, 64)
    hidden: tuple[Width, ...] = (512, 256, 128)

    def build(self, shape: tuple[int, int, int]) -> Chain:
        """The network for images of ``shape`` (channels, height, width).

        Per width a 4×4 convolution of stride 2, batch normalisation and ReLU; then one Linear and ReLU per hidden
        width. Glorot-uniform weights and zero biases, since the paper does not specify them. Convolutions are padded by
        1, which is "SAME" for images whose sides are multiples of 4.

        Raises:
            ConfigError: the images are too small to be halved twice.
        """
        check_halved_twice(self.name, shape)
        channels, height, width = shape
        layers: list[nn.Module] = []
        for outputs in self.widths:
            layers += [nn.Conv2d(channels, outputs, kernel_size=4, stride=2, padding=1)]
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
            channels, height, width = outputs, height // 2, width // 2
        maps = nn.Sequential(*layers)
        glorot_(maps)
        head = mlp(channels * height * width, self.hidden)
        return Chain(head.features, maps=maps, head=head)
