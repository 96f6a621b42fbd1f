"""The input of a check: one classifier, the audited images, and the audit's settings."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from isthmus.attacks.threats import Threat
from isthmus.checks.trained_on import TrainedOn
from isthmus.core import randomness
from isthmus.core.errors import ConfigError
from isthmus.core.types import CheckResult
from isthmus.data.images import as_float
from isthmus.models.modes import AveragedDraws

MEAN, STOCHASTIC = "mean", "stochastic"

Progress = Callable[[int, int], None]
"""Called with (done, total)."""

Load = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From positions to images, in [0, 1] or bytes, on the model's device, and their keys."""


T = TypeVar("T")


def part(progress: Progress, position: int, parts: int) -> Progress:
    """Progress of one of ``parts`` equally long tasks, reported as progress of the whole; ``position`` is from 0."""
    return lambda done, total: progress(position * total + done, parts * total)


def _silent(_done: int, _total: int) -> None:
    return None


@dataclass(frozen=True)
class Context:
    """The input of every check.

    Attributes:
        model: from float images in [0, 1], N×C×H×W, to logits, in eval mode, on ``device``. The mean mode of a
            bottleneck.
        stochastic: the stochastic mode of the same model, if it has one.
        bottleneck: the model itself if it has ``encode``, for measures of information.
        images, labels: the audited examples, on ``device``.
        threat: norm and largest ε; checks that scan ε go from 0 to it.
        draws: passes that :attr:`model` averages; more than 1 for an external model with random predictions.
        stateful: whether predictions depend on earlier calls; then :attr:`model` calls a fresh copy each time. None
            if that could not be tested.
        indices: positions of the examples in their data set; 0..N−1 if None.
        trained_on: the training examples; None if unknown. A check that uses them stores their hash, or None, as
            ``details["trained_on"]``, so that an audit with other training examples does not reuse the result.
        claimed: the robust accuracy that is claimed elsewhere, in [0, 1]; None if there is no claim.
        budget: "quick" or "full".
        seed: every random choice derives from it and the example's index.
        progress: called with (done, total).
        folder: the audit's folder, for files besides the result; None in memory.
        results: results of this audit that are known already, by check.
    """

    model: nn.Module
    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, "n"]
    num_classes: int
    threat: Threat
    stochastic: nn.Module | None = None
    bottleneck: nn.Module | None = None
    draws: int = 1
    stateful: bool | None = False
    indices: Int[Tensor, "n"] | None = None
    trained_on: TrainedOn | None = None
    claimed: float | None = None
    budget: Literal["quick", "full"] = "quick"
    folder: Path | None = None
    seed: int = 0
    batch_size: int = 256
    progress: Progress = field(default=_silent, repr=False)
    results: Mapping[str, CheckResult] = field(default_factory=dict, repr=False)

    @property
    def modes(self) -> dict[str, nn.Module]:
        """The classifier in mean mode and, if it has one, in stochastic mode."""
        return {MEAN: self.model} | ({} if self.stochastic is None else {STOCHASTIC: self.stochastic})

    @cached_property
    def keys(self) -> Int[Tensor, "n"]:
        """One random key per example (see :mod:`isthmus.core.randomness`), on ``device``."""
        return randomness.example_keys(self.seed, self.positions.to(self.images.device))

    @property
    def positions(self) -> Int[Tensor, "n"]:
        """Positions of the examples in their data set."""
        return torch.arange(len(self.labels)) if self.indices is None else self.indices

    @property
    def truth(self) -> NDArray[np.int64]:
        """The true labels."""
        return np.asarray(self.labels.cpu().numpy(), dtype=np.int64)

    @cached_property
    def logits(self) -> Float[Tensor, "n classes"]:
        """Clean logits of :attr:`model` on all images, computed once for all checks (float32, on the CPU)."""
        return self._clean(self.model)

    @cached_property
    def stochastic_logits(self) -> Float[Tensor, "n classes"]:
        """Clean log-probabilities averaged over samples of :attr:`stochastic`, computed once."""
        assert self.stochastic is not None
        return self._clean(self.stochastic)

    def _clean(self, model: nn.Module) -> Tensor:
        return torch.from_numpy(self.predictions(models={MEAN: model})[MEAN])

    def rows(self, rows: Int[Tensor, "m"]) -> tuple[Tensor, Tensor]:
        """Some of the images, and their keys."""
        rows = rows.to(self.images.device)
        return self.images[rows], self.keys[rows]

    def predictions(
        self,
        load: Load | None = None,
        count: int | None = None,
        models: Mapping[str, nn.Module] | None = None,
        progress: Progress = _silent,
    ) -> dict[str, NDArray[np.float32]]:
        """Logits or log-probabilities float32[count, classes] of each model. Each batch is loaded once.

        Args:
            load: images and keys of a batch; those of the audited images if None.
            count: number of images; that of the audited images if None.
            models: by name; all modes of the classifier if None.
            progress: called with (done, total) images.
        """
        count = len(self.labels) if count is None else count
        models = self.modes if models is None else models
        found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in models}
        for rows in torch.split(torch.arange(count), self.batch_size):
            images, keys = (load or self.rows)(rows)
            images = as_float(images) if images.dtype == torch.uint8 else images
            for name, model in models.items():
                found[name].append(predict(model, images, keys).numpy())
            progress(int(rows[-1]) + 1, count)
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def by_mode(
        self, measure: Callable[[nn.Module, Progress], T], modes: Container[str] = (MEAN, STOCHASTIC)
    ) -> dict[str, T]:
        """What ``measure`` returns for each of these modes; it gets the model and its share of the progress.

        Raises:
            ConfigError: the classifier has none of these modes.
        """
        models = {mode: model for mode, model in self.modes.items() if mode in modes}
        if not models:
            raise ConfigError("The classifier has no stochastic mode; omit modes, or name mean.")
        return {
            mode: measure(model, part(self.progress, position, len(models)))
            for position, (mode, model) in enumerate(models.items())
        }

    def first(self, count: int | None) -> Context:
        """The same with the first ``count`` examples only; with all if None."""
        indices = None if self.indices is None else self.indices[:count]
        return replace(self, images=self.images[:count], labels=self.labels[:count], indices=indices)

    def clean_logits(self) -> dict[str, NDArray[np.float32]]:
        """Logits or log-probabilities on the clean images, by mode."""
        found = {MEAN: self.logits.numpy()}
        return found if self.stochastic is None else found | {STOCHASTIC: self.stochastic_logits.numpy()}


def single_draw(model: nn.Module, seed: int) -> nn.Module:
    """The model for verifiers that average over draws themselves: of an average over passes, a single pass."""
    return AveragedDraws(model.model, 1, seed).eval() if isinstance(model, AveragedDraws) else model


def predict(model: nn.Module, images: Float[Tensor, "b c h w"], keys: Int[Tensor, "b"]) -> Float[Tensor, "b classes"]:
    """Logits of one mode for a batch, without gradients, float32 on the CPU.

    A stochastic mode draws an example's noise from its key, so that no prediction depends on the batch. The model gets
    a copy of the images, which it may change in place.
    """
    with torch.no_grad():
        options = {"keys": keys} if getattr(model, "takes_keys", False) else {}
        logits: Tensor = model(images.clone(), **options)
        return logits.float().cpu()


def finite(logits: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether all logits of an example are finite: bool[n]."""
    return np.asarray(np.isfinite(logits).all(axis=1), dtype=np.bool_)


def correct(logits: NDArray[Any], truth: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether an example has finite logits and is classified correctly: bool[n]."""
    return np.asarray(finite(logits) & (logits.argmax(axis=1) == truth), dtype=np.bool_)


def spread(values: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[Any]:
    """Values of the examples in ``known`` as an array over all examples; NaN (or false) for the others."""
    whole = np.full(known.size, False if values.dtype == bool else np.nan, dtype=values.dtype)
    whole[known] = values
    return whole
