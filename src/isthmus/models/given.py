"""A backbone that a program gives as a module, which a recipe can name but not build."""

from __future__ import annotations

import copy

import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from isthmus.core.errors import ConfigError, ModelError, one_line
from isthmus.core.preserve_state import in_mode
from isthmus.models import identity
from isthmus.models.backbones.backbone import Backbone


class GivenBackbone(Backbone):
    """A module given to :func:`isthmus.train`.

    A saved recipe holds its class and the hash of its layers. To build the model of that recipe, give the module again.

    Attributes:
        module: name of the module's class.
        structure: SHA-256 of its printed layers.
    """

    module: str
    structure: str
    _given: nn.Module | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, module: object) -> GivenBackbone:
        """The backbone of a recipe for a module.

        Raises:
            ConfigError: it is no ``nn.Module``.
        """
        if not isinstance(module, nn.Module):
            hint = " Give an instance, such as Net()." if isinstance(module, type) else ""
            raise ConfigError(
                f"backbone is an nn.Module from images to features, or the name of a backbone; got "
                f"{getattr(module, '__name__', type(module).__name__)}.{hint}"
            )
        found = cls(module=type(module).__name__, structure=identity.structure(module))
        found._given = module
        return found

    def weights(self) -> str:
        """SHA-256 of the module's present weights; empty if there is no module."""
        return "" if self._given is None else identity.fingerprint(self._given)

    def build(self, shape: tuple[int, int, int]) -> nn.Module:
        """A copy of the module on the CPU, so that training leaves the user's module as it is.

        Raises:
            ModelError: the module was not given again, or it cannot be copied.
        """
        if self._given is None:
            raise ModelError(
                f"The backbone of this run, {self.module}, was given in Python and cannot be built from the recipe. "
                f"Give it again: isthmus.load(RUN, backbone={self.module}(...)), and audit that model with "
                "isthmus.audit; or, to resume, isthmus.train(RECIPE, backbone=...)."
            )
        try:
            return copy.deepcopy(self._given).cpu()
        except Exception as error:  # copying calls code of the module
            raise ModelError(f"The backbone {self.module} cannot be copied: {one_line(error)}.") from error


@torch.no_grad()
def measured_features(backbone: nn.Module, shape: tuple[int, int, int]) -> int:
    """Number of features of a backbone, by a forward pass in eval mode on two grey images.

    Raises:
        ModelError: it fails on such images, or gives something else than batch × features.
    """
    name, size = type(backbone).__name__, "×".join(map(str, shape))
    with in_mode(backbone, False):
        try:
            found = backbone(torch.full((2, *shape), 0.5))
        except Exception as error:  # code of the user
            raise ModelError(f"The backbone {name} fails on images of {size}: {one_line(error)}") from error
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != 2:
        given = f"{tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ModelError(
            f"The backbone {name} gives {given} for 2 images of {size}; it must give one tensor, batch × features. End "
            "it with pooling and a Flatten."
        )
    return int(found.shape[1])
