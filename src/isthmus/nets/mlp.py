"""Fully connected layers on the flattened image, as in the MNIST experiments of Alemi et al. 2017."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.config import Component
from isthmus.nets.layers import glorot_

Activation = Literal["relu", "tanh"]


class Config(Component):
    """Options of the network.

    Attributes:
        hidden: widths of the layers; the last one is the number of features.
        activation: after each of them.
        batch_norm: after each activation.
    """

    name: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] = (1024, 1024)
    activation: Activation = "relu"
    batch_norm: bool = False


class MLP(nn.Module):
    """Flatten, then one Linear and its activation per width; Glorot-uniform weights and zero biases."""

    def __init__(
        self, inputs: int, hidden: tuple[int, ...], activation: Activation = "relu", batch_norm: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for width in hidden:
            layers += [nn.Linear(inputs, width), nn.ReLU() if activation == "relu" else nn.Tanh()]
            layers += [nn.BatchNorm1d(width)] if batch_norm else []
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.features = inputs
        glorot_(self)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n features"]:
        """Features of normalised images."""
        features: Tensor = self.layers(images)
        return features


def build(config: Config, shape: tuple[int, int, int]) -> MLP:
    """The network for images of ``shape`` (channels, height, width)."""
    return MLP(math.prod(shape), config.hidden, config.activation, config.batch_norm)
