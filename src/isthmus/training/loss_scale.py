"""The scale of the loss in half precision (fp16), which keeps small gradients above zero."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, optim

from isthmus.training.monitor import diverged

LEAST = 2.0**-14
"""At a smaller scale, dozens of successive steps have overflowed, and nothing is learned."""


class LossScale:
    """Scales the loss and unscales its gradients in fp16; does nothing in other precisions.

    Args:
        scaler: multiplies the loss before the backward pass; None in other precisions.
    """

    def __init__(self, scaler: torch.amp.GradScaler | None) -> None:
        self.scaler = scaler

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss times the scale."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def unscale(self, optimizers: Collection[optim.Optimizer]) -> None:
        """Divide gradients by the scale. They are averages over processes, so all see an overflow of one."""
        if self.scaler is not None:
            for optimizer in optimizers:
                self.scaler.unscale_(optimizer)

    def take_steps(self, optimizers: Collection[optim.Optimizer]) -> None:
        """One step of each optimiser. Steps with overflowed gradients are skipped, and the scale is reduced."""
        for optimizer in optimizers:
            if self.scaler is None:
                optimizer.step()
            else:
                self.scaler.step(optimizer)
        if self.scaler is not None:
            self.scaler.update()

    def facts(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {} if self.scaler is None else self.scaler.state_dict()

    def restore(self, facts: dict[str, Any]) -> None:
        """Restore the scale of a checkpoint."""
        if self.scaler is not None:
            self.scaler.load_state_dict(facts)

    def check(self, step: int) -> None:
        """Stop the run if every step overflows.

        Raises:
            ModelError: the scale has fallen below :data:`LEAST`.
        """
        if self.scaler is not None and self.scaler.get_scale() < LEAST:
            raise diverged(step, f"gradients overflow in fp16 even with a loss scale of {LEAST:g}")
