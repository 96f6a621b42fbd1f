"""The position of each layer in the information plane, epoch by epoch: its information about image and label.

Figure 3 of "A Rate-Distortion Theory of Adversarial Examples", after Shwartz-Ziv & Tishby 2017: activations of some
training images are binned so that all bins of a layer are equally full, again for every report. A deterministic layer
then has Î(X;T) = Ĥ(T) about the image and Î(T;Y) = Ĥ(T) − Ĥ(T|Y) about the label. With real-valued activations I(X;T)
is infinite: the estimates hold for binned layers, and are lower bounds.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from isthmus.data.images import ImageData, as_float
from isthmus.data.order import balanced
from isthmus.information.binning import Binning, information_plane
from isthmus.training.callbacks.activations import activations, layers_of
from isthmus.training.callbacks.callback import Callback, CallbackState


class InformationPlane(Callback):
    """The information plane of the layers.

    Attributes:
        samples: number of training images, class-balanced; at most all.
        bins: number of bins of each layer.
        layers: names of modules; empty means all nonlinear ones. The logits are always included.
    """

    name: Literal["information_plane"] = "information_plane"
    samples: Annotated[int, Field(gt=1)] = 2000
    bins: Annotated[int, Field(gt=1)] = 30
    layers: tuple[str, ...] = ()

    def build(self, model: nn.Module, data: ImageData, seed: int) -> InformationPlaneState:
        """The plane of a model; the images do not depend on the seed.

        Raises:
            ConfigError: see :func:`isthmus.training.callbacks.activations.layers_of`.
        """
        layers_of(model, self.layers)  # reports wrong names before training
        return InformationPlaneState(self, model, data)


class InformationPlaneState(CallbackState):
    """The same images at the end of each epoch, with the labels that the model is trained on."""

    def __init__(self, config: InformationPlane, model: nn.Module, data: ImageData) -> None:
        self.config, self.model = config, model
        chosen = data.train.select(balanced(data.train.labels)[: config.samples])
        self.images, self.labels = as_float(chosen.images), chosen.labels

    def end_epoch(self) -> dict[str, Any]:
        """``{"samples", "label_entropy_bits", "layers": {name: [Î(X;T), Î(T;Y)] in bits}}``."""
        found = activations(self.model, self.images, self.config.layers)
        plane = information_plane(found, self.labels, Binning(self.config.bins))
        entropy = next(iter(plane.values())).label_entropy
        return {
            "samples": len(self.labels),
            "label_entropy_bits": entropy / math.log(2.0),
            "layers": {name: [layer.i_xt_bits, layer.i_ty_bits] for name, layer in plane.items()},
        }
