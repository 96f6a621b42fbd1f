"""A small convolutional network, the default for small images: five 3×3 convolutions without normalisation.

About 156,000 parameters at the default widths. It trains in seconds on 8×8 digits and suits images up to 64×64.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from isthmus.models.backbones.backbone import Backbone
from isthmus.models.backbones.layers import Chain, conv3x3, he_

Width = Annotated[int, Field(gt=0)]
_GRID = 2  # the last maps are averaged to 2×2 rather than 1×1: the position of a stroke distinguishes 6 from 9


class Conv(Backbone):
    """``widths`` are the channels at full, half and quarter resolution; features are 4 times the last."""

    name: Literal["conv"] = "conv"
    widths: tuple[Width, Width, Width] = (24, 48, 96)

    def build(self, shape: tuple[int, int, int]) -> Chain:
        """The network for images of ``shape`` (channels, height, width).

        Convolutions with ReLU at three resolutions, then averages over a 2×2 grid.
        """
        full, half, quarter = self.widths
        plan = [(shape[0], full, 1), (full, half, 2), (half, half, 1), (half, quarter, 2), (quarter, quarter, 1)]
        layers: list[nn.Module] = []
        for inputs, outputs, stride in plan:
            layers += [conv3x3(inputs, outputs, stride, bias=True), nn.ReLU()]
        network = Chain(quarter * _GRID**2, layers=nn.Sequential(*layers, nn.AdaptiveAvgPool2d(_GRID), nn.Flatten()))
        he_(network)
        return network
