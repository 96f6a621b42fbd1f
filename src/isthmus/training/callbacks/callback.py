"""What an observer of training is.

An observer's file defines a frozen ``Config`` and::

    def observe(config, model, data, seed) -> Observer

It changes nothing: a run with observers ends with bitwise the weights of one without. What it says at the end of an
epoch stands in ``metrics.jsonl``, in a line ``{"step": …, "epoch": …, "observed": {NAME: …}}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from isthmus.core.config import Component


class ObserverConfig(Component):
    """Options of every observer.

    Attributes:
        every: it speaks at the end of every so many epochs, and of the last.
    """

    every: Annotated[int, Field(gt=0)] = 1


class Observer:
    """Does nothing; an observer overrides what it needs."""

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
