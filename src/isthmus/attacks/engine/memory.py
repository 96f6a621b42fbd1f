"""Does a model remember what it was asked? Then no answer is its own, and attacks see what it said before.

A cache of early answers, as services have one, gives an adversarial image the answer to the clean image that was asked
first, so that nothing breaks it; asked about the adversarial image alone, it errs. The same holds for a model that
learns from its input. Such a model is judged as a fresh copy would answer.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.attacks.engine import rounding
from isthmus.attacks.threats import Threat
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.core.randomness import example_keys
from isthmus.models.modes import seeded

IMAGES = 16
"""Images that are asked about, spread over those that are given."""


class Fresh(nn.Module):
    """A model that answers each batch as a copy of it which was asked nothing before; the model itself is never asked.

    Args:
        model: from images to logits, with or without keys.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.takes_keys = bool(getattr(model, "takes_keys", False))

    def forward(self, images: Tensor, **options: Any) -> Tensor:
        """The model's answer."""
        logits: Tensor = copy.deepcopy(self.model)(images, **options)
        return logits


def remembers(model: nn.Module, images: Float[Tensor, "n c h w"], threat: Threat, seed: int = 0) -> bool | None:
    """Whether answers to images near the given ones depend on whether the given ones were asked about before.

    Asks copies, never the model itself: one about images and then their neighbours, another about the neighbours alone.
    A model that answers one batch in two ways, one after the other, counts as random, and not as one that remembers.

    Args:
        model: in eval mode.
        images: in [0, 1], on any device.
        threat: neighbours are drawn from its ball, and from one of a quarter of its size.

    Returns:
        None where it cannot be copied, or a copy does not answer.
    """
    device = device_of(model, images)
    rows = torch.linspace(0, len(images) - 1, min(len(images), IMAGES)).long()
    some, rows = images[rows.to(images.device)].to(device, torch.float32), rows.to(device)
    keys = example_keys(seed, rows)
    nearest_margin = torch.where(
        (torch.arange(len(rows), device=device) % 2 == 0)[:, None, None, None],
        threat.random_start(some, keys),
        threat.with_eps(threat.eps / 4).random_start(some, keys),
    )
    options = {"keys": keys} if getattr(model, "takes_keys", False) else {}

    def answers(*asked: Tensor) -> Tensor:
        """A fresh copy's answer to the last of these."""
        own = copy.deepcopy(model)
        for each in asked:
            with torch.no_grad(), seeded(seed, device):
                last: Tensor = own(each.clone(), **options)
        return functional.pad(last.float(), (0, 1))  # a binary classifier may answer with one column

    try:
        alone = answers(nearest_margin)
        return rounding.differ(alone, answers(some, nearest_margin)) and not rounding.differ(
            alone, answers(nearest_margin, nearest_margin)
        )
    except Exception:  # somebody else's model may be impossible to copy, or answer with anything
        return None


def most_queries(n: int) -> int:
    """Images that copies are asked about, at most, where n images are given."""
    return 5 * min(n, IMAGES)


def without(model: nn.Module, images: Float[Tensor, "n c h w"], threat: Threat) -> nn.Module:
    """The model; or, with a warning, a view of it that forgets, where it remembers."""
    with preserve_state(model, device_of(model, images), 0):
        if not remembers(model, images, threat):
            return model
    warnings.warn(
        "The model's answers depend on what it was asked before (a cache, or learning from its input?). It is judged "
        "as a fresh copy would answer each batch.",
        stacklevel=3,
    )
    return Fresh(model)
