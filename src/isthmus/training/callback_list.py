"""The callbacks of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from isthmus.core.config import Component, instance
from isthmus.data.images import ImageData
from isthmus.training.callbacks.callback import Callback, CallbackState

_PREFIX = "callback_"


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
