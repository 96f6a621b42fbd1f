"""What a callback of training is.

A callback's file defines a frozen ``Config`` and::

    def build(config, model, data, seed) -> Observer

It changes nothing: a run with callbacks ends with bitwise the weights of one without. What it says at the end of an
epoch stands in ``metrics.jsonl``, in a line ``{"step": …, "epoch": …, "observed": {NAME: …}}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from isthmus.core.config import Component


class CallbackConfig(Component):
    """Options of every callback.

    Attributes:
        every: it speaks at the end of every so many epochs, and of the last.
    """

    every: Annotated[int, Field(gt=0)] = 1


class Callback:
    """Does nothing; a callback overrides what it needs."""

    def gradients(self) -> None:
        """Called at every step, when gradients are whole and the optimiser has not yet moved anything."""

    def end_epoch(self) -> Mapping[str, Any]:
        """Called at the end of every epoch in which it speaks; plain data."""
        return {}

    def forget(self) -> None:
        """Called at the end of every epoch, after it may have spoken: the next begins anew."""

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps in the middle of an epoch."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
