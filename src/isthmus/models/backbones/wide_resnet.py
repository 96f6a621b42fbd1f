"""Wide residual networks (Zagoruyko & Komodakis 2016), with or without batch normalisation.

A stem of 16 channels, then three groups of 16k, 32k and 64k channels at strides 1, 2 and 2. One rule gives
the blocks per group, round((depth − 4)/6) and at least 1: 4 at depth 28, 10 at 62, 1 at 7. Parameters with
norm and a 10-class linear head: 28×10 has 36.48 million, 62×7 46.35 million; 7×2 without norm, on one
channel, has 0.301 million before its head.

Batch normalisation is off by default, since it removed the robustness of CEB's 28×10 to ℓ∞ attacks (Fischer & Alemi
2020; their 62×7 has it). Without it the network has no biases either, and starts stably because
every block starts as its shortcut, or because every convolution keeps norms (``init``).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from isthmus.models.backbones.backbone import Backbone
from isthmus.models.backbones.residual import Init, Shortcut, Trunk


class WideResNet(Backbone):
    """Depth×width as in "28×10".

    Attributes:
        norm: batch normalisation before every ReLU.
        shortcut: if the shape changes, a 1×1 convolution ("conv"), or average pooling and zero channels
            ("pad", as in AutoAugment's networks, but without their extra skips over whole groups).
        init: "he", He-normal convolutions, where the last of each block starts at zero without norm; or
            "delta_orthogonal", orthogonal matrices at the kernels' centres (Xiao et al. 2018), as in Alemi et al. 2018
            for the wide ResNet of "Uncertainty in the variational information bottleneck".
    """

    name: Literal["wide_resnet"] = "wide_resnet"
    depth: Annotated[int, Field(ge=7)] = 28
    width: Annotated[int, Field(gt=0)] = 10
    norm: bool = False
    shortcut: Shortcut = "conv"
    init: Init = "he"

    def build(self, shape: tuple[int, int, int]) -> Trunk:
        """The network for images of ``shape`` (channels, height, width); it has 64·width features."""
        k = self.width
        return Trunk(
            channels=shape[0],
            widths=(16, 16 * k, 32 * k, 64 * k),
            strides=(1, 2, 2),
            blocks=(blocks_per_group(self.depth),) * 3,
            norm=self.norm,
            shortcut=self.shortcut,
            init=self.init,
        )


def blocks_per_group(depth: int) -> int:
    """Blocks per group: max(1, round((depth − 4)/6)), which covers 6n+4, 62 (a linear head counted) and 7."""
    return max(1, round((depth - 4) / 6))
