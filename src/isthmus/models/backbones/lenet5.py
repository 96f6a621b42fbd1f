"""LeNet-5 in its modern form: ReLU, max pooling, fully connected maps (after LeCun et al. 1998).

On 28×28 images it is the usual network of 61,706 parameters with ten classes: 6 maps of 5×5, pooled, 16 maps of 5×5,
pooled to 5×5, then 120 and 84 units. Guess First (arXiv 2001.03311, appendix F) trains one like it as the
substitute model of black-box attacks.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from isthmus.models.backbones.backbone import Backbone
from isthmus.models.backbones.layers import Chain, check_halved_twice, glorot_
from isthmus.models.backbones.mlp import mlp

_MAPS, _UNITS = (6, 16), (120, 84)
_UNPADDED = 12  # pixels; on smaller images the unpadded second convolution would leave no map to pool


class LeNet5(Backbone):
    """No options; 84 features."""

    name: Literal["lenet5"] = "lenet5"

    def build(self, shape: tuple[int, int, int]) -> Chain:
        """The network for images of ``shape`` (channels, height, width), Glorot-uniform.

        The first convolution is padded by 2, in place of the border around the digits of LeCun et al. The second is
        unpadded like theirs; for images below 12 pixels it is padded by 2, so that 8×8 digits give 16 maps of 2×2.

        Raises:
            ConfigError: the images are too small to be pooled twice.
        """
        check_halved_twice(self.name, shape)
        channels, height, width = shape
        padding = 2 if min(height, width) < _UNPADDED else 0
        lower, upper = _MAPS
        maps = nn.Sequential(
            nn.Conv2d(channels, lower, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(lower, upper, kernel_size=5, padding=padding),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        glorot_(maps)
        height, width = ((side // 2 - 4 + 2 * padding) // 2 for side in (height, width))
        head = mlp(upper * height * width, _UNITS)
        return Chain(head.features, maps=maps, head=head)
