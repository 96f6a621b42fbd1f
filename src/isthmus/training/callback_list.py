"""The callbacks of a run: who is told what, and what a checkpoint keeps of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from isthmus.core import registry
from isthmus.core.config import Component
from isthmus.data.images import ImageData
from isthmus.training.callbacks.callback import Callback, CallbackConfig

_PREFIX = "callback_"


class CallbackList:
    """All that were asked for, each under its name."""

    def __init__(self, asked: Sequence[Component], model: nn.Module, data: ImageData, seed: int) -> None:
        self._every = {each.name: cast("CallbackConfig", each).every for each in asked}
        self._all: dict[str, Callback] = {
            each.name: registry.find("callbacks", each.name).build(each, model, data, seed) for each in asked
        }

    def gradients(self) -> None:
        """Gradients are whole, and nothing has moved yet."""
        for callback in self._all.values():
            callback.gradients()

    def end_epoch(self, epoch: int, last: bool) -> dict[str, Any]:
        """What they say of an epoch, counted from 0: those whose turn it is, and all of the last."""
        said = {}
        for name, callback in self._all.items():
            if last or (epoch + 1) % self._every[name] == 0:
                said[name] = callback.end_epoch()
            callback.forget()
        return said

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """A group of a checkpoint for each."""
        return {f"{_PREFIX}{name}": callback.tensors() for name, callback in self._all.items()}

    def restore(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Put state from a checkpoint's groups back."""
        for name, callback in self._all.items():
            callback.restore(groups.get(f"{_PREFIX}{name}", {}))
