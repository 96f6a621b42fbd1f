"""Fully connected layers on the flattened image, as in the MNIST experiments of Alemi et al. 2017."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.models.backbones.backbone import Backbone
from isthmus.models.backbones.layers import glorot_

Activation = Literal["relu", "tanh"]
BatchNorm = bool | Literal["unscaled"]


class MLP(Backbone):
    """Options of the network.

    Attributes:
        hidden: widths of the layers; the last one is the number of features.
        activation: after each layer.
        batch_norm: after each activation; "unscaled" does not train the scale γ.
    """

    name: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] = (1024, 1024)
    activation: Activation = "relu"
    batch_norm: BatchNorm = False

    def build(self, shape: tuple[int, int, int]) -> MLPModule:
        """The network for images of ``shape`` (channels, height, width)."""
        return MLPModule(math.prod(shape), self.hidden, self.activation, self.batch_norm)


class MLPModule(nn.Module):
    """Flatten, then one Linear and its activation per width; Glorot-uniform weights and zero biases."""

    def __init__(
        self, inputs: int, hidden: tuple[int, ...], activation: Activation = "relu", batch_norm: BatchNorm = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for width in hidden:
            layers += [nn.Linear(inputs, width), nn.ReLU() if activation == "relu" else nn.Tanh()]
            if batch_norm:
                layers.append(nn.BatchNorm1d(width))
                layers[-1].weight.requires_grad_(batch_norm != "unscaled")
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.features = inputs
        glorot_(self)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n features"]:
        """Features of normalised images."""
        features: Tensor = self.layers(images)
        return features
