"""How a label hypothesis enters a network: by concatenation, by a learned embedding, or by a projection per label.

The first layer is linear in the features and in the label. So the part of the features is computed once for all
hypotheses, and each hypothesis adds its part: the exact result of concatenation, at a fraction of the cost.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.core.errors import ModelError

Inject = Literal["concatenate", "embed", "project"]


@dataclass(frozen=True)
class Conditioned:
    """The first layer of a batch, to be evaluated under some of the hypotheses.

    Attributes:
        under: its output under these labels.
        width: size of that output for one image and label.
    """

    under: Callable[[slice], Float[Tensor, "labels n *rest"]]
    width: int


class Injection(nn.Module, ABC):
    """The first layer under each hypothesis.

    Attributes:
        num_classes: number of hypotheses.
    """

    num_classes: int

    @abstractmethod
    def begin(self, features: Tensor) -> Conditioned:
        """Compute the part that all hypotheses share.

        Raises:
            ModelError: the features do not fit the layer.
        """


class Concatenation(Injection):
    """A linear or convolutional layer on [features, label]: W·[h, u_k] + b = (W_h·h + b) + W_u·u_k.

    The label's vector u_k comes after the features, for a convolution as constant maps.

    Args:
        layer: the layer on the concatenation; its weights are used in place.
        num_classes: number of hypotheses.
        embedding: size of a learned u_k (initially standard normal); None means one-hot labels.

    Raises:
        ModelError: the layer has fewer inputs than the label needs, is a convolution of several groups or with padding
            other than zeros, or has a custom forward or hooks, which would not run.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, num_classes: int, embedding: int | None = None) -> None:
        super().__init__()
        self.layer, self.num_classes = layer, num_classes
        self.embedding = None if embedding is None else nn.Embedding(num_classes, embedding)
        inputs = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
        self.own = inputs - (num_classes if embedding is None else embedding)
        if self.own < 1:
            raise ModelError(
                f"The trunk's first layer takes {inputs} inputs, of which the label alone needs {inputs - self.own}; "
                "it must take the features and the label."
            )
        if isinstance(layer, nn.Conv2d) and (layer.groups != 1 or layer.padding_mode != "zeros"):
            raise ModelError(
                f"Labels are concatenated before a convolution of one group with zeros around it; this one has "
                f"groups={layer.groups}, padding_mode={layer.padding_mode!r}."
            )
        plain = nn.Linear if isinstance(layer, nn.Linear) else nn.Conv2d
        if type(layer).forward is not plain.forward or layer._forward_pre_hooks or layer._forward_hooks:
            raise ModelError(
                f"The trunk's first layer, {type(layer).__name__}, has a custom forward or hooks, which would not "
                f"run: only its weight and bias are used. Give a plain nn.{plain.__name__} (parametrizations of "
                "torch.nn.utils.parametrize are fine)."
            )

    def begin(self, features: Tensor) -> Conditioned:
        """W_h·h + b, once."""
        layer, dims = self.layer, 4 if isinstance(self.layer, nn.Conv2d) else 2
        if features.dim() != dims or features.shape[1] != self.own:
            raise ModelError(
                f"The front gives {tuple(features.shape)}; the trunk's first layer takes {dims} dimensions, of which "
                f"the second has {self.own} beside the label's."
            )
        weight, of_the_label = torch.split(layer.weight, [self.own, layer.weight.shape[1] - self.own], 1)
        if isinstance(layer, nn.Conv2d):
            shared = _convolved(layer, features, weight, layer.bias)
        else:
            shared = functional.linear(features, weight, layer.bias)

        def under(labels: slice) -> Tensor:
            of_labels = self._weights_of(labels, of_the_label)
            if isinstance(layer, nn.Conv2d):  # a constant plane gives a constant, except near the padding
                plane = of_labels.new_ones(1, 1, *features.shape[2:])
                maps = _convolved(layer, plane, of_labels.flatten(0, 1)[:, None], None)
                of_labels = maps.view(*of_labels.shape[:2], *maps.shape[2:])
            return shared + of_labels[:, None].to(shared.dtype)

        return Conditioned(under, math.prod(shared.shape[1:]))

    def _weights_of(self, labels: slice, weight: Float[Tensor, "out e *kernel"]) -> Float[Tensor, "labels out *kernel"]:
        """W_u·u_k, in the memory layout of the features' part."""
        if self.embedding is None:
            return weight[:, labels].transpose(0, 1).contiguous()
        return torch.einsum("oe...,le->lo...", weight, self.embedding.weight[labels])


def _convolved(layer: nn.Conv2d, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return functional.conv2d(images, weight, bias, layer.stride, layer.padding, layer.dilation)


class Projection(Injection):
    """One linear layer per label: P_k·h + b_k. With one output and no further layer, a linear classifier.

    Args:
        features: size of h.
        width: outputs of the projection.
        num_classes: number of hypotheses, each with a Glorot-uniform matrix.
    """

    def __init__(self, features: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.weight = nn.Parameter(torch.empty(num_classes, width, features))
        self.bias = nn.Parameter(torch.zeros(num_classes, width))
        limit = math.sqrt(6.0 / (features + width))
        nn.init.uniform_(self.weight, -limit, limit)

    def begin(self, features: Tensor) -> Conditioned:
        """Only the features are shared."""
        if features.dim() != 2 or features.shape[1] != self.weight.shape[2]:
            raise ModelError(
                f"The front gives {tuple(features.shape)}; the labels' projections take batch x {self.weight.shape[2]}."
            )

        def under(labels: slice) -> Tensor:
            weight, bias = self.weight[labels].to(features.dtype), self.bias[labels].to(features.dtype)
            return torch.baddbmm(bias[:, None], features.expand(len(weight), -1, -1), weight.mT)

        return Conditioned(under, self.weight.shape[1])
