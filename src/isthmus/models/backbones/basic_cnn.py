"""Three convolutions without pooling: the "basic CNN" of CleverHans's tutorials, as in the SVHN study.

On 32×32 grey images, 8×8 kernels of stride 2 give 32 maps of 16×16, 6×6 kernels of stride 2 give 64 of 6×6, and 5×5
kernels 64 of 2×2. These 256 numbers are the features; with ten classes there are 180,906 parameters (table 3 of "A
Rate-Distortion Theory of Adversarial Examples").
"""

from __future__ import annotations

from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.core.errors import ConfigError
from isthmus.models.backbones.backbone import Backbone
from isthmus.models.backbones.layers import unit_norm_


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

    def build(self, shape: tuple[int, int, int]) -> BasicCNNModule:
        """The network for images of ``shape`` (channels, height, width).

        Raises:
            ConfigError: the images are smaller than 28×28.
        """
        return BasicCNNModule(shape, self.width, self.batch_norm)


class BasicCNNModule(nn.Module):
    """8×8/2, padded by 3 (TensorFlow's "SAME"); 6×6/2; 5×5; ReLU after each. Each filter starts with norm 1."""

    def __init__(self, shape: tuple[int, int, int], width: int, batch_norm: bool) -> None:
        super().__init__()
        channels, height, width_ = shape
        sides = []
        for side in (height, width_):
            first = (side + 2 * 3 - 8) // 2 + 1
            second = (first - 6) // 2 + 1
            sides.append(second - 4)
        if min(sides) < 1:
            raise ConfigError(f"basic_cnn needs images of at least 28×28 pixels; these have {height}×{width_}.")

        def normed(maps: int) -> list[nn.Module]:
            return [nn.BatchNorm2d(maps, track_running_stats=False)] if batch_norm else []

        self.maps = nn.Sequential(
            nn.Conv2d(channels, width, kernel_size=8, stride=2, padding=3),
            nn.ReLU(),
            *normed(width),
            nn.Conv2d(width, 2 * width, kernel_size=6, stride=2),
            nn.ReLU(),
            *normed(2 * width),
            nn.Conv2d(2 * width, 2 * width, kernel_size=5),
            nn.ReLU(),
            nn.Flatten(),
        )
        unit_norm_(self.maps)
        self.features = 2 * width * sides[0] * sides[1]

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n features"]:
        """Features of normalised images."""
        features: Tensor = self.maps(images)
        return features
