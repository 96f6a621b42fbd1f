"""The loss's scale in half precision (fp16), without which small gradients would be zero there."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, optim

from isthmus.training.monitor import diverged

LEAST = 2.0**-14
"""With a smaller scale every step of the last dozens has overflowed, so that nothing is learned."""


class LossScale:
    """Does nothing in other precisions.

    Args:
        scaler: multiplies the loss before its gradients are taken; None in other precisions.
    """

    def __init__(self, scaler: torch.amp.GradScaler | None) -> None:
        self.scaler = scaler

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss times the scale."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def unscale(self, optimizers: Collection[optim.Optimizer]) -> None:
        """Divide gradients by the scale. They are averages over processes: what overflowed in one has in all."""
        if self.scaler is not None:
            for optimizer in optimizers:
                self.scaler.unscale_(optimizer)

    def take_steps(self, optimizers: Collection[optim.Optimizer]) -> None:
        """A step of each. One whose gradients overflowed takes none, and the scale is smaller from then on."""
        for optimizer in optimizers:
            if self.scaler is None:
                optimizer.step()
            else:
                self.scaler.step(optimizer)
        if self.scaler is not None:
            self.scaler.update()

    def facts(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {} if self.scaler is None else self.scaler.state_dict()

    def restore(self, facts: dict[str, Any]) -> None:
        """Go on with a checkpoint's scale."""
        if self.scaler is not None:
            self.scaler.load_state_dict(facts)

    def check(self, step: int) -> None:
        """Stop where every step overflows.

        Raises:
            ModelError: the scale has sunk below :data:`LEAST`.
        """
        if self.scaler is not None and self.scaler.get_scale() < LEAST:
            raise diverged(step, f"gradients overflow in fp16 even where the loss is scaled by {LEAST:g}")
