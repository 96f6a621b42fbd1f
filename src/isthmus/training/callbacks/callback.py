"""Base classes of callbacks.

A callback measures and changes nothing: a run with callbacks ends with bitwise the same weights as one without. What it
reports at the end of an epoch is written to ``metrics.jsonl``, in a line
``{"step": …, "epoch": …, "observed": {NAME: …}}``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from isthmus.core.config import Component, instance
from isthmus.data.images import ImageData

_PREFIX = "callback_"


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


class CallbackList:
    """The callbacks of a recipe, by name; calls and checkpoints all of them."""

    def __init__(self, callbacks: Sequence[Component], model: nn.Module, data: ImageData, seed: int) -> None:
        checked = [instance("callbacks", each, Callback) for each in callbacks]
        self._every = {each.name: each.every for each in checked}
        self._all: dict[str, CallbackState] = {each.name: each.build(model, data, seed) for each in checked}

    def gradients(self) -> None:
        """Call all callbacks when gradients are complete and no weight has moved."""
        for callback in self._all.values():
            callback.gradients()

    def end_epoch(self, epoch: int, last: bool) -> dict[str, Any]:
        """The reports of an epoch (counted from 0), by callback; after the last epoch, of all callbacks."""
        reports = {}
        for name, callback in self._all.items():
            if last or (epoch + 1) % self._every[name] == 0:
                reports[name] = callback.end_epoch()
            callback.reset()
        return reports

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """One group of a checkpoint per callback."""
        return {f"{_PREFIX}{name}": callback.tensors() for name, callback in self._all.items()}

    def restore(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore the state from the groups of a checkpoint."""
        for name, callback in self._all.items():
            callback.restore(groups.get(f"{_PREFIX}{name}", {}))
