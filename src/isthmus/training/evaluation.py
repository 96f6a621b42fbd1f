"""Accuracy of a model on a split, without changing its training state."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from isthmus.core.preserve_state import in_mode
from isthmus.data.batches import Batches
from isthmus.data.images import Examples
from isthmus.models.learner import Learner

_BYTES = 40_000_000  # of a batch: 1000 small images, 265 of 224×224


def count_right(model: Learner, split: Examples, weights: Mapping[str, Tensor], channels_last: bool = False) -> Tensor:
    """Number of images of a split that the mean mode classifies correctly, with some weights replaced."""
    return sums(model, split, weights, channels_last)[0].long()


@torch.no_grad()
def sums(model: Learner, split: Examples, weights: Mapping[str, Tensor], channels_last: bool = False) -> Tensor:
    """Number of correct images, and sum of their cross-entropies in nats, of the mean mode, as float64."""
    device = next(model.parameters()).device
    found = torch.zeros(2, dtype=torch.float64, device=device)
    size = max(1, min(1000, _BYTES // math.prod(split.shape)))
    with in_mode(model, False):
        for images, labels, _ in Batches(
            split, size, shuffle=False, channels_last=channels_last, device=device
        ).epoch():
            logits = torch.func.functional_call(model, dict(weights), (images,))
            right = (logits.argmax(-1) == labels).sum()
            found += torch.stack([right, nn.functional.cross_entropy(logits.double(), labels, reduction="sum")])
    return found
