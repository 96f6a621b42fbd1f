"""Wrappers of the model under diagnosis: with a gradient, one image at a time, finite, in float64.

Each gives the model a copy of the images, which the model may change in place.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Wrapper(nn.Module):
    """Base of wrappers of a model from images to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class ZeroGradientModel(Wrapper):
    """A model without gradients, given a gradient of zero so that gradient-based attacks can run on it."""

    def forward(self, images: Tensor, **options: Any) -> Tensor:
        """The model's logits."""
        with torch.no_grad():
            logits: Tensor = self.model(images.detach().clone(), **options)
        return logits + 0 * images.flatten(1).sum(1, keepdim=True)


class PerImageModel(nn.Module):
    """A model that gets one image at a time, so that its predictions cannot depend on the batch.

    Args:
        model: from images to logits; without keys.
        others: images k×C×H×W that complete every batch, always the same; none by default.
    """

    def __init__(self, model: nn.Module, others: Tensor | None = None) -> None:
        super().__init__()
        self.model, self.others = model, others

    def forward(self, images: Tensor) -> Tensor:
        """Logits, each from a separate batch."""
        others = images[:0] if self.others is None else self.others.to(images)
        return torch.cat([self.model(torch.cat([image, others]))[:1] for image in torch.split(images, 1)])


class FiniteModel(Wrapper):
    """A model with finite numbers in place of NaN and infinity, in its logits and in its gradient.

    An infinite logit becomes the largest finite number. Logits with NaN become a constant vector, up to the last bit of
    one entry: equal to within rounding (:func:`isthmus.attacks.engine.rounding.alike`), they break no example. A
    gradient entry that is not finite becomes 0.
    """

    def forward(self, images: Tensor, **options: Any) -> Tensor:
        """Finite logits."""
        copied = images.clone()
        if copied.requires_grad:
            copied.register_hook(lambda gradient: gradient.nan_to_num(0.0, 0.0, 0.0))  # type: ignore[no-untyped-call]
        logits: Tensor = self.model(copied, **options)
        undecided = torch.ones_like(logits, dtype=torch.float32)
        undecided[:, 0] -= 2.0**-24  # the last bit
        return torch.where(logits.isnan().any(1, keepdim=True), undecided, logits.nan_to_num())


class _Double(Wrapper):
    def forward(self, images: Tensor, **options: Any) -> Tensor:
        logits: Tensor = self.model(images.to(torch.float64, copy=True), **options)
        return logits


def in_double(model: nn.Module, probe: Tensor, **options: Any) -> nn.Module | None:
    """A copy that computes in float64; None if the model cannot be copied or does not work in float64.

    Args:
        model: from images to logits; never changed.
        probe: a few images that the copy must be able to classify.
        options: keyword arguments of its ``forward``, such as ``keys``.
    """

    try:
        double = _Double(copy.deepcopy(model).double())
        with torch.enable_grad():  # as attacks will call it
            double(probe.detach().requires_grad_(), **options)
    except Exception:  # a user's model may be impossible to copy, or insist on float32
        return None
    return double
