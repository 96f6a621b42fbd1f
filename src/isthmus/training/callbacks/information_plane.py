"""Where each layer stands in the information plane, epoch by epoch: what it says of the image, what of the label.

Figure 3 of "A Rate-Distortion Theory of Adversarial Examples", after Shwartz-Ziv & Tishby 2017: activations of some
training images are binned so that all bins of a layer are equally full, anew at every look. A deterministic layer then
says Î(X;T) = Ĥ(T) of the image, and Î(T;Y) = Ĥ(T) − Ĥ(T|Y) of the label. With real numbers for activations I(X;T)
itself is infinite: these are about binned layers, and lower bounds.
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
from isthmus.training.callbacks.callback import Callback, CallbackConfig


class Config(CallbackConfig):
    """Options of the information plane.

    Attributes:
        samples: so many training images, class-balanced; no more than there are.
        bins: of each layer.
        layers: names of modules; all nonlinear ones where empty. The logits are always there.
    """

    name: Literal["information_plane"] = "information_plane"
    samples: Annotated[int, Field(gt=1)] = 2000
    bins: Annotated[int, Field(gt=1)] = 30
    layers: tuple[str, ...] = ()


class InformationPlane(Callback):
    """Looks at the same images at the end of each epoch, with the labels that the model is trained on."""

    def __init__(self, config: Config, model: nn.Module, data: ImageData) -> None:
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


def build(config: Config, model: nn.Module, data: ImageData, seed: int) -> InformationPlane:
    """The callback of a model; the images do not depend on the seed.

    Raises:
        ConfigError: see :func:`isthmus.training.callbacks.activations.layers_of`.
    """
    layers_of(model, config.layers)  # its faults are the recipe's
    return InformationPlane(config, model, data)
