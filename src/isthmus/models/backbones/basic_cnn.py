"""Three convolutions without pooling: the "basic CNN" of CleverHans's tutorials, as in the SVHN study.

On 32×32 grey images, 8×8 kernels of stride 2 give 32 maps of 16×16, 6×6 kernels of stride 2 give 64 of 6×6, and 5×5
kernels 64 of 2×2. These 256 numbers are the features; with ten classes there are 180,906 parameters (table 3 of "A
Rate-Distortion Theory of Adversarial Examples").
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from isthmus.core.errors import ConfigError
from isthmus.models.backbones.backbone import Backbone
from isthmus.models.backbones.layers import Chain, unit_norm_


class BasicCNN(Backbone):
    """Options of the network.

    Attributes:
        width: channels of the first convolution; the others have twice as many.
        batch_norm: after the first two ReLUs, with the statistics of the current batch, also in eval mode: there are no
            running averages, so predictions depend on the rest of the batch. This is the paper's model C.
    """

    name: Literal["basic_cnn"] = "basic_cnn"
    width: Annotated[int, Field(gt=0)] = 32
    batch_norm: bool = False

    def build(self, shape: tuple[int, int, int]) -> Chain:
        """The network for images of ``shape`` (channels, height, width).

        8×8/2, padded by 3 (TensorFlow's "SAME"); 6×6/2; 5×5; ReLU after each. Each filter starts with norm 1.

        Raises:
            ConfigError: the images are smaller than 28×28.
        """
        channels, height, width = shape
        rows, columns = (((side - 2) // 2 + 1 - 6) // 2 + 1 - 4 for side in (height, width))
        if min(rows, columns) < 1:
            raise ConfigError(f"basic_cnn needs images of at least 28×28 pixels; these have {height}×{width}.")
        k = self.width
        maps = nn.Sequential(
            nn.Conv2d(channels, k, kernel_size=8, stride=2, padding=3),
            *self._activation(k),
            nn.Conv2d(k, 2 * k, kernel_size=6, stride=2),
            *self._activation(2 * k),
            nn.Conv2d(2 * k, 2 * k, kernel_size=5),
            nn.ReLU(),
            nn.Flatten(),
        )
        unit_norm_(maps)
        return Chain(2 * k * rows * columns, maps=maps)

    def _activation(self, maps: int) -> list[nn.Module]:
        norm = [nn.BatchNorm2d(maps, track_running_stats=False)] if self.batch_norm else []
        return [nn.ReLU(), *norm]
