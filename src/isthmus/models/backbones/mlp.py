"""Fully connected layers on the flattened image, as in the MNIST experiments of Alemi et al. 2017."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from isthmus.models.backbones.backbone import Backbone
from isthmus.models.backbones.layers import Chain, glorot_

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

    def build(self, shape: tuple[int, int, int]) -> Chain:
        """The network for images of ``shape`` (channels, height, width)."""
        return mlp(math.prod(shape), self.hidden, self.activation, self.batch_norm)


def mlp(inputs: int, hidden: tuple[int, ...], activation: Activation = "relu", batch_norm: BatchNorm = False) -> Chain:
    """Flatten, then one Linear and its activation per width; Glorot-uniform weights and zero biases."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU() if activation == "relu" else nn.Tanh()]
        if batch_norm:
            layers.append(nn.BatchNorm1d(width))
            layers[-1].weight.requires_grad_(batch_norm != "unscaled")
        inputs = width
    network = Chain(inputs, layers=nn.Sequential(*layers))
    glorot_(network)
    return network
