"""Base classes of callbacks.

A callback measures and changes nothing: a run with callbacks ends with bitwise the same weights as one without. What it
reports at the end of an epoch is written to ``metrics.jsonl``, in a line
``{"step": …, "epoch": …, "observed": {NAME: …}}``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from isthmus.core.config import Component
from isthmus.data.images import ImageData


class CallbackState:
    """A callback in one run. Every method does nothing by default; a callback overrides those that it needs."""

    def gradients(self) -> None:
        """Called at every step, when gradients are complete and before the optimiser moves any weight."""

    def end_epoch(self) -> Mapping[str, Any]:
        """Called at the end of every epoch that is reported; returns plain data."""
        return {}

    def reset(self) -> None:
        """Called at the end of every epoch, after :meth:`end_epoch`: the next epoch starts afresh."""

    def tensors(self) -> dict[str, Tensor]:
        """State that a checkpoint within an epoch keeps."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state of a checkpoint."""


class Callback(Component, ABC):
    """Options of a callback, and how to start it.

    Attributes:
        every: report at the end of every ``every``-th epoch, and of the last.
    """

    every: Annotated[int, Field(gt=0)] = 1

    @abstractmethod
    def build(self, model: nn.Module, data: ImageData, seed: int) -> CallbackState:
        """Start the callback for one run.

        Raises:
            ConfigError: options that do not fit the model or the data.
        """
