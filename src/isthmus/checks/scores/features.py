"""Features of any classifier: the input of its last linear layer, read and replaced by forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.checks.context import predict
from isthmus.models.outputs import is_one, two

_ROUNDING = 1e-3  # of the logits' size; a half-precision layer rounds to this

NO_LINEAR_LAYER = "the classifier's logits are not those of one linear layer, whose input would be the features"


class Features:
    """Reads and replaces the input of a model's last linear layer.

    Args:
        model: from images in [0, 1] to logits, with or without keys.
        layer: its last linear layer, see :func:`features_of`.
    """

    def __init__(self, model: nn.Module, layer: nn.Linear) -> None:
        self.model, self.layer = model, layer

    @property
    def weight(self) -> Float[Tensor, "classes d"]:
        """Weights of the layer, float64 on the CPU; the difference of the two classes comes as the rows 0 and w."""
        weight = self.layer.weight.detach().double().cpu()
        return weight if len(weight) > 1 else torch.cat([torch.zeros_like(weight), weight])

    @property
    def bias(self) -> Float[Tensor, " classes"]:
        """Biases of the layer, float64 on the CPU; 0 if it has none."""
        given: Tensor | None = self.layer.bias
        if given is None:
            return torch.zeros(len(self.weight), dtype=torch.float64)
        bias = given.detach().double().cpu()
        return bias if len(bias) > 1 else torch.cat([torch.zeros_like(bias), bias])

    def outputs(
        self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n classes"]]:
        """Features and logits, float32 on the CPU."""
        found: list[Tensor] = []

        def read(_layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            found.append(inputs[0].detach().float().cpu())

        with _hooked(self.layer.register_forward_pre_hook(read)):
            logits = predict(self.model, images, keys)
        return found[-1], logits

    def replaced(
        self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"], change: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "n classes"]:
        """Logits with changed features, float32 on the CPU."""

        def replace(_layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (change(inputs[0]), *inputs[1:])

        with _hooked(self.layer.register_forward_pre_hook(replace)):
            return predict(self.model, images, keys)


@contextmanager
def _hooked(hook: Any) -> Iterator[None]:
    try:
        yield
    finally:
        hook.remove()


def features_of(model: nn.Module, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"]) -> Features | None:
    """The features of a model, or None if its logits are not those of one linear layer.

    The layer is the ``nn.Linear`` that is called last. Up to a constant per image and a positive factor, its outputs
    must be the logits; so a softmax or a temperature may follow, but no other layer, and no average over several models
    or passes.

    Args:
        images: a few images, to follow one pass.
    """
    calls: list[tuple[nn.Linear, Tensor]] = []

    def record(layer: Any, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            calls.append((layer, output.detach().float().cpu()))

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(record) for layer in layers if hasattr(layer, "weight")]
    try:
        logits = predict(model, images, keys)
    finally:
        for hook in hooks:
            hook.remove()
    if not calls:
        return None
    layer, output = calls[-1]
    output = two(output) if is_one(output, len(images)) else output
    return Features(model, layer) if _same(output, logits) else None


def _same(output: Tensor, logits: Tensor) -> bool:
    """Whether two rows of logits each are equal up to constants and one positive factor."""
    if output.shape != logits.shape:
        return False
    rows = output.isfinite().all(1) & logits.isfinite().all(1)
    own, others = (each[rows].double() - each[rows].double().mean(1, keepdim=True) for each in (output, logits))
    size = (own * own).sum()
    if not rows.any() or size == 0:
        return False
    factor = (own * others).sum() / size
    return bool(factor > 0 and (others - factor * own).norm() <= _ROUNDING * others.norm())
