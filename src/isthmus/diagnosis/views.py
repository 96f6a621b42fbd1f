"""The suspect seen in other ways: with some gradient, as log-probabilities, one image at a time, in float64.

Each shows the model a copy of the images, which it may change in place.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class WithoutGradient(nn.Module):
    """A model that gives no gradient, with a gradient of zero, so that attacks which want one can be shown it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, **options: Any) -> Tensor:
        """The model's answer."""
        with torch.no_grad():
            logits: Tensor = self.model(images.detach().clone(), **options)
        return logits + 0 * images.flatten(1).sum(1, keepdim=True)


class LogProbabilities(nn.Module):
    """A model that answers with probabilities, answering with their logarithms: the logits they come from."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, **options: Any) -> Tensor:
        """Log-probabilities; of zeros, of the smallest positive number of their dtype."""
        probabilities: Tensor = self.model(images.clone(), **options)
        dtype = probabilities.dtype if probabilities.is_floating_point() else torch.float32
        return probabilities.clamp(min=torch.finfo(dtype).tiny).log()


class Alone(nn.Module):
    """A model that is shown one image at a time, so that its answer cannot depend on who else is in the batch.

    Args:
        model: from images to logits; without keys.
        company: images k×C×H×W that are shown with each one, always the same; none by default.
    """

    def __init__(self, model: nn.Module, company: Tensor | None = None) -> None:
        super().__init__()
        self.model, self.company = model, company

    def forward(self, images: Tensor) -> Tensor:
        """Logits, each from a batch of its own."""
        others = images[:0] if self.company is None else self.company.to(images)
        return torch.cat([self.model(torch.cat([image, others]))[:1] for image in torch.split(images, 1)])


class Finite(nn.Module):
    """A model with numbers in place of NaN and infinity, in its answers and in its gradient.

    An infinite logit becomes the largest number there is. In an answer that holds NaN all logits become alike but for
    the last bit of one, so that it breaks nothing (:func:`isthmus.attacks.engine.rounding.alike`), as a constant answer
    may. A gradient that is not finite is 0.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, **options: Any) -> Tensor:
        """The model's answer, finite."""
        shown = images.clone()
        if shown.requires_grad:
            shown.register_hook(lambda gradient: gradient.nan_to_num(0.0, 0.0, 0.0))  # type: ignore[no-untyped-call]
        logits: Tensor = self.model(shown, **options)
        undecided = torch.ones_like(logits, dtype=torch.float32)
        undecided[:, 0] -= 2.0**-24  # the last bit
        return torch.where(logits.isnan().any(1, keepdim=True), undecided, logits.nan_to_num())


def in_double(model: nn.Module, probe: Tensor, **options: Any) -> nn.Module | None:
    """A copy that computes in float64; None where the model cannot be copied or does not follow.

    Args:
        model: from images to logits; never changed.
        probe: a few images, which the copy must be able to answer.
        options: to ask about them with, such as ``keys``.
    """

    class Double(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = copy.deepcopy(model).double()

        def forward(self, images: Tensor, **options: Any) -> Tensor:
            logits: Tensor = self.model(images.to(torch.float64, copy=True), **options)
            return logits

    try:
        double = Double()
        with torch.enable_grad():  # as it will be asked
            double(probe.detach().requires_grad_(), **options)
    except Exception:  # somebody else's model may be impossible to copy, or insist on float32
        return None
    return double
