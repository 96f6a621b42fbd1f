"""Pre-activation ResNets for small images (He et al. 2016b), as Korshunova et al. 2021 use on CIFAR-10.

A stem of 3×3 with 64 channels, stages of 64, 128, 256 and 512 channels at strides 1, 2, 2 and 2, batch
normalisation and ReLU before every convolution and before the global average pooling.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from isthmus.models.backbones.backbone import Backbone
from isthmus.models.backbones.layers import Chain
from isthmus.models.backbones.mlp import mlp
from isthmus.models.backbones.residual import Trunk

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class PreActResNet(Backbone):
    """Depth 18 or 34; ``norm`` False omits batch normalisation (see :mod:`isthmus.models.backbones.wide_resnet`).

    ``hidden`` are the widths of fully connected ReLU layers after the pooling: (1024, 1024) in Korshunova et al. 2021.
    """

    name: Literal["preact_resnet"] = "preact_resnet"
    depth: Literal[18, 34] = 18
    norm: bool = True
    hidden: tuple[Annotated[int, Field(gt=0)], ...] = ()

    def build(self, shape: tuple[int, int, int]) -> Trunk | Chain:
        """The network for images of ``shape`` (channels, height, width); 512 features, or the last of ``hidden``."""
        trunk = Trunk(
            channels=shape[0],
            widths=(64, 64, 128, 256, 512),
            strides=(1, 2, 2, 2),
            blocks=_BLOCKS[self.depth],
            norm=self.norm,
            shortcut="conv",
        )
        if not self.hidden:
            return trunk
        head = mlp(trunk.features, self.hidden)
        return Chain(head.features, trunk=trunk, head=head)
