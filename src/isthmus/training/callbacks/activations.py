"""Outputs of the layers of any model, captured by hooks."""

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
"""Modules that count as layers by default."""
LOGITS = "logits"
"""Name of the output of the model."""


def layers_of(model: nn.Module, named: Sequence[str] = ()) -> dict[str, nn.Module]:
    """The named layers, or all nonlinear modules, by name in the order of the model.

    Raises:
        ConfigError: an unknown name, or no name and no nonlinear module.
    """
    modules = dict(model.named_modules())
    if not named:
        found: dict[str, nn.Module] = {
            name: module for name, module in modules.items() if isinstance(module, NONLINEAR)
        }
        if not found:
            raise ConfigError(
                f"{type(model).__name__} has no module such as nn.ReLU; name layers: "
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
    """Output of each layer, flattened, float32 on the CPU; and the logits, as "logits".

    The model runs in eval mode, and its mode is restored. A layer that a model uses several times has several outputs,
    "name", "name.2", and so on.

    Args:
        images: in [0, 1], on any device.
        layers: names of modules; empty means all nonlinear ones.

    Raises:
        ConfigError: see :func:`layers_of`.
    """
    device = next((each.device for each in model.parameters()), images.device)
    kept: dict[str, list[Tensor]] = {}
    with _recording(layers_of(model, layers)) as outputs, _eval_mode(model):
        for part in torch.split(images, batch_size):
            outputs.clear()
            answer = model(part.to(device))
            for name, value in (*outputs.items(), (LOGITS, answer)):
                kept.setdefault(name, []).append(value.detach().float().flatten(1).cpu())
    return {name: torch.cat(parts) for name, parts in kept.items()}


@contextmanager
def _recording(layers: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    outputs: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def record(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            number, key = 1, name
            while key in outputs:
                number += 1
                key = f"{name}.{number}"
            # a copy, in case the next layer works in place
            outputs[key] = output.detach().clone()

        return record

    handles = [module.register_forward_hook(hook(name)) for name, module in layers.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode; restores the mode of every module afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
