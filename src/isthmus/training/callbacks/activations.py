"""What the layers of any model answer to images, captured by hooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.errors import ConfigError, unknown

NONLINEAR = (
    nn.ReLU,
    nn.Tanh,
    nn.ELU,
    nn.GELU,
    nn.SELU,
    nn.CELU,
    nn.SiLU,
    nn.Mish,
    nn.Sigmoid,
    nn.Softplus,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ReLU6,
    nn.Hardtanh,
    nn.Hardswish,
)
"""Modules whose answers are a layer's by default."""
LOGITS = "logits"
"""What the answer of the model itself is called."""


def layers_of(model: nn.Module, named: Sequence[str] = ()) -> dict[str, nn.Module]:
    """The layers to look at, by their names in the model and in its order: those named, or all nonlinear modules.

    Raises:
        ConfigError: a name that the model has not, or no nonlinear module where none is named.
    """
    modules = dict(model.named_modules())
    if not named:
        found: dict[str, nn.Module] = {
            name: module for name, module in modules.items() if isinstance(module, NONLINEAR)
        }
        if not found:
            raise ConfigError(
                f"{type(model).__name__} has no module such as nn.ReLU to look at; name layers: "
                f"{', '.join(name for name in modules if name)}."
            )
        return found
    for name in named:
        if name not in modules or not name:
            raise ConfigError(unknown("layer", name, [each for each in modules if each]))
    return {name: modules[name] for name in modules if name in named}


@torch.no_grad()
def activations(
    model: nn.Module, images: Float[Tensor, "n c h w"], layers: Sequence[str] = (), batch_size: int = 500
) -> dict[str, Float[Tensor, "n units"]]:
    """What each layer answers, flattened, float32 on the CPU; and the logits, as "logits".

    The model answers in eval mode and is left as it was. A layer that a model uses several times has several answers,
    "name", "name.2", and so on.

    Args:
        images: in [0, 1], on any device; they go to the model's.
        layers: names of modules; all nonlinear ones where empty.

    Raises:
        ConfigError: see :func:`layers_of`.
    """
    device = next((each.device for each in model.parameters()), images.device)
    kept: dict[str, list[Tensor]] = {}
    with _listening(layers_of(model, layers)) as heard, _answering(model):
        for part in torch.split(images, batch_size):
            heard.clear()
            answer = model(part.to(device))
            for name, value in (*heard.items(), (LOGITS, answer)):
                kept.setdefault(name, []).append(value.detach().float().flatten(1).cpu())
    return {name: torch.cat(parts) for name, parts in kept.items()}


@contextmanager
def _listening(layers: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    heard: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def hear(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            number, key = 1, name
            while key in heard:
                number += 1
                key = f"{name}.{number}"
            # a copy, in case the next layer works in place
            heard[key] = output.detach().clone()

        return hear

    handles = [module.register_forward_hook(hook(name)) for name, module in layers.items()]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _answering(model: nn.Module) -> Iterator[None]:
    """In eval mode, and afterwards every module in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
