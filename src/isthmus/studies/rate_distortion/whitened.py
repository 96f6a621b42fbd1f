"""The tables' models without their whitening: on whitened images, and on images that are not whitened."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isthmus.core.errors import ConfigError
from isthmus.models.backbones.layers import Normalize
from isthmus.models.learner import Learner
from isthmus.models.whitening import Whitening

_AT_A_TIME = 500  # images


@dataclass(frozen=True, eq=False)
class Inside:
    """A model that takes whitened images, scaled to [0, 1] as audits require.

    Attributes:
        images: of shape n×1×h×w; 0 and 1 are the least and the largest value of all.
        unit: how much of the whitened images' own scale fits into [0, 1].
        low: the least of their values.
    """

    model: Learner
    images: Tensor
    unit: float
    low: float

    @property
    def origin(self) -> float:
        """What a whitened pixel of 0 has become."""
        return -self.low / self.unit


def whitening(model: Learner) -> Whitening:
    """The whitening of a model.

    Raises:
        ConfigError: it has none.
    """
    if not isinstance(model.normalize, Whitening):
        raise ConfigError("This needs a model that whitens its images; give normalize.name=zca.")
    return model.normalize


@torch.no_grad()
def inside(model: Learner, images: Tensor) -> Inside:
    """The model after its whitening, and these images as it sees them."""
    seen = torch.cat([whitening(model)(part) for part in torch.split(images, _AT_A_TIME)])
    low, high = float(seen.min()), float(seen.max())
    unit = high - low
    # (x − mean) / std undoes the squeezing
    return Inside(_behind(model, Normalize([-low / unit], [1 / unit])), ((seen - low) / unit).clamp(0, 1), unit, low)


def without(model: Learner, images: Tensor) -> tuple[Learner, Tensor]:
    """The model with its whitening taken away, and these images grey and of the size that it then takes, in [0, 1]."""
    own = whitening(model)
    return _behind(model, nn.Identity()), own.grey(images).view(-1, *own.shape).clamp(0, 1)


def _behind(model: Learner, normalize: nn.Module) -> Learner:
    bare = copy.deepcopy(model)
    bare.normalize = normalize
    return bare.eval()
