"""Counted queries of a model: its logits and gradients, and whether it has gradients at all."""

from __future__ import annotations

from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.diagnosis.bpda.model import BPDAModel
from isthmus.diagnosis.budget import Spending
from isthmus.diagnosis.wrappers import ZeroGradientModel


def gives_gradient(model: nn.Module, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"] | None = None) -> bool:
    """Whether a model's backward pass reaches the images at all, if only with a gradient of zero.

    Args:
        model: from images to logits.
        images: a few images.
        keys: for a model that takes keys; None for all others.
    """
    leaf = images.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            logits = model(leaf.clone(), **({} if keys is None else {"keys": keys}))
            (gradient,) = torch.autograd.grad(logits.float().sum(), leaf, allow_unused=True)
    except Exception:  # a user's model may raise anything where numpy meets autograd
        return False
    return gradient is not None


class ModelQueries:
    """Queries of one model outside of attacks.

    Methods and properties that query the model raise ``BudgetExhausted`` if the passes or the time do not suffice.

    Args:
        model: from images in [0, 1] to logits.
        examples: images to try gradients on.
        spending: where passes are counted.
    """

    def __init__(self, model: nn.Module, examples: Batch, spending: Spending) -> None:
        self.model, self.examples, self.spending = model, examples, spending

    @cached_property
    def has_gradient(self) -> bool:
        """Whether the model's own backward pass gives a gradient."""
        return self._gives_gradient(self.model)

    @cached_property
    def differentiable(self) -> bool:
        """Whether a gradient exists, from the model itself or by BPDA. False for numpy, ONNX or a remote service."""
        return self.has_gradient or self._gives_gradient(BPDAModel(self.model))

    @cached_property
    def zero_gradient_model(self) -> nn.Module | None:
        """The model with a gradient of zero, if it has none; None otherwise."""
        return None if self.has_gradient else ZeroGradientModel(self.model)

    def _gives_gradient(self, model: nn.Module) -> bool:
        images, keys = self.examples.images[:2], self.examples.keys[:2]
        self.spending.reserve(len(images), len(images))
        return gives_gradient(model, images, keys if getattr(self.model, "takes_keys", False) else None)

    def logits(self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"]) -> Float[Tensor, "n classes"]:
        """The model's logits."""
        counted_model = self.spending.restrict(CountedModel(self.model))
        with torch.no_grad():
            logits = counted_model.logits(images, keys)
        self.spending.add(counted_model.forward_passes)
        return logits

    def gradients(
        self, images: Float[Tensor, "n c h w"], batch: Batch, loss: str
    ) -> tuple[Float[Tensor, "n classes"], Float[Tensor, "n c h w"]]:
        """Logits, and the gradient of a loss with respect to the images; zero for a model without gradients."""
        counted_model = self.spending.restrict(CountedModel(self.model, self.zero_gradient_model))
        answer = counted_model.query(images, batch.keys, lambda logits: batch.ascend(loss, logits))
        self.spending.add(counted_model.forward_passes, counted_model.backward_passes)
        return answer.logits, answer.gradient
