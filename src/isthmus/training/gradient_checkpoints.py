"""Gradient checkpointing (Chen et al. 2016, arXiv:1604.06174): less memory for one more forward pass."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from isthmus.core.errors import ConfigError
from isthmus.core.preserve_state import in_mode


def checkpoint_blocks(network: nn.Module) -> None:
    """Keep only the inputs of the network's blocks for the backward pass, which computes each block again.

    Blocks are the elements of an ``nn.Sequential`` or ``nn.ModuleList`` that have layers of their own, the outermost
    ones. Batch normalisation updates its running statistics once, and dropout draws the same mask again.

    Raises:
        ConfigError: the network has no blocks.
    """
    blocks = _blocks(network)
    if not blocks:
        raise ConfigError(
            f"training.gradient_checkpointing: the backbone {type(network).__name__} has no blocks, which are elements "
            "of an nn.Sequential with layers of their own; leave it out, or group layers into blocks."
        )
    for block in blocks:
        block.forward = _Recomputed(block)


def _blocks(network: nn.Module) -> list[nn.Module]:
    found: list[nn.Module] = []
    for child in network.children():
        inside = isinstance(network, nn.Sequential | nn.ModuleList) and any(True for _ in child.children())
        found += [child] if inside else _blocks(child)
    return found


class _Recomputed:
    """The forward pass of a block, without keeping what is inside."""

    def __init__(self, block: nn.Module) -> None:
        self.block, self.compute = block, block.forward

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.compute(*inputs, **named)
        return checkpoint(self.compute, *inputs, use_reentrant=False, context_fn=self._contexts, **named)

    def _contexts(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), in_mode(self.block, None)  # the second pass leaves running statistics as they are
