"""Early stopping on the validation split, with the weights of the best epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from isthmus.core.training_options import EarlyStopping


class EarlyStopper:
    """The best validation so far, its weights, and how many validations have passed without a better one.

    Everything is saved in checkpoints, so that a resumed run stops at the same step.

    Attributes:
        best: value of the metric at the best validation; None before the first.
        since: number of validations since then.
        line: what ``metrics.jsonl`` says of that epoch.
        weights: parameters and buffers after that epoch, on the CPU.
    """

    def __init__(self, settings: EarlyStopping | None) -> None:
        self.settings = settings
        self.best: float | None = None
        self.since = 0
        self.line: dict[str, Any] = {}
        self.weights: dict[str, Tensor] = {}

    def improves(self, validated: Mapping[str, float]) -> bool:
        """Count a validation; whether it is the best so far, and :meth:`keep` must follow."""
        if self.settings is None or not validated:
            return False
        value, larger = validated[f"validation_{self.settings.metric}"], self.settings.metric == "accuracy"
        gain = 0.0 if self.best is None else value - self.best if larger else self.best - value
        if self.best is None or gain > self.settings.min_delta:
            self.best, self.since = value, 0
            return True
        self.since += 1
        return False

    @torch.no_grad()
    def keep(self, line: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Keep the epoch that is the best so far."""
        self.line = dict(line)
        self.weights = {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}

    @property
    def stopped(self) -> bool:
        """Whether training ends."""
        return self.settings is not None and self.since >= self.settings.patience

    def facts(self) -> dict[str, Any]:
        """State for a checkpoint, beside ``weights``."""
        return {"best": self.best, "since": self.since, "line": self.line}

    def restore(self, facts: Mapping[str, Any], weights: Mapping[str, Tensor], names: set[str]) -> None:
        """Restore the state of a checkpoint.

        Raises:
            ValueError, LookupError: it is not such a state.
        """
        if self.settings is None:
            return
        self.best, self.since, self.line = facts["best"], facts["since"], facts["line"]
        self.weights = dict(weights)
        if type(self.since) is not int or not isinstance(self.line, dict):
            raise ValueError("its early stopping is not valid")
        if self.best is not None and set(weights) != names:
            raise ValueError("its best weights are not of this model")
