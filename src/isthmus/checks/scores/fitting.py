"""Fit OOD scores to a classifier, and the reasons why a score is not available for it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from pydantic import BeforeValidator, SerializeAsAny
from torch import Tensor, nn

from isthmus.checks.context import Progress
from isthmus.checks.scores.features import NO_LINEAR_LAYER, Features, features_of
from isthmus.checks.scores.function import ScoreFunction
from isthmus.checks.scores.score import OODScore, Scoring, Training
from isthmus.checks.trained_on import Labelled
from isthmus.core import randomness
from isthmus.core.config import component, instance
from isthmus.data.images import as_float
from isthmus.diagnosis.model_queries import gives_gradient

_FEWEST = 2

UNKNOWN = "the training images are not known: give them as trained_on, or name their data set as training"


def configured(given: object) -> OODScore:
    """A score from its name, ``module:Name``, ``module:function``, a mapping with options, or as an object.

    Raises:
        ConfigError: there is no such score, or an option does not fit.
    """
    return instance("ood_scores", component("ood_scores", given), OODScore)


OODScores = SerializeAsAny[Annotated[OODScore, BeforeValidator(configured)]]
"""An option that names an OOD score."""


@dataclass(frozen=True, eq=False)
class FittedScores:
    """Scores as functions of a batch.

    Attributes:
        scoring: by name.
        extractor: of the model's features, if a score uses them.
        missing: scores that the classifier does not have, each with the reason.
        fitted_on: number of training images.
    """

    scoring: Mapping[str, Scoring] = field(default_factory=dict)
    extractor: Features | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    fitted_on: int = 0


def names_of(scores: Sequence[OODScore], taken: Iterable[str] = ()) -> list[str]:
    """A short name for each, other than those that are taken; the second of a name ends in ``_2``."""
    seen: Counter[str] = Counter(taken)
    names = []
    for score in scores:
        path = score.path if isinstance(score, ScoreFunction) else score.name
        name = re.sub(r"\W+", "_", path.rpartition(":")[2]).lower()
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names


def fit_scores(
    scores: Mapping[str, OODScore],
    model: nn.Module,
    images: Tensor,
    training: Labelled | None = None,
    batch_size: int = 256,
    seed: int = 0,
    progress: Progress = lambda _done, _total: None,
) -> FittedScores:
    """Fit scores to a model in eval mode.

    Args:
        scores: by name.
        model: from images in [0, 1] to logits.
        images: a few images on the model's device, to test the model with.
        training: training examples to fit scores on; None if unknown.
        progress: called with (done, total) training images.
    """
    keys = randomness.example_keys(seed, torch.arange(len(images), device=images.device))
    extractor = features_of(model, images, keys) if any(score.uses_features for score in scores.values()) else None
    missing = _missing(scores, model, images, extractor, training is not None)
    found: Training | None = None
    wanted = [name for name, score in scores.items() if score.uses_training and name not in missing]
    if wanted and extractor is not None and training is not None:
        found = _outputs(extractor, training, images.device, batch_size, seed, progress)
        if len(found.labels) < _FEWEST:
            missing |= dict.fromkeys(wanted, f"fewer than {_FEWEST} training images have finite features")
    scoring = {
        name: score.fit(found if score.uses_training else None) for name, score in scores.items() if name not in missing
    }
    return FittedScores(scoring, extractor, missing, 0 if found is None else len(found.labels))


def _missing(
    scores: Mapping[str, OODScore], model: nn.Module, images: Tensor, extractor: Features | None, known: bool
) -> dict[str, str]:
    """Scores that cannot be computed, each with the reason."""
    reasons = {name: NO_LINEAR_LAYER for name, score in scores.items() if score.uses_features and extractor is None}
    if not known:
        reasons |= {name: UNKNOWN for name, score in scores.items() if score.uses_training and name not in reasons}
    uphill = [name for name, score in scores.items() if score.uses_gradient]
    keys = torch.zeros(2, dtype=torch.long, device=images.device)
    if uphill and not gives_gradient(model, images[:2], keys if getattr(model, "takes_keys", False) else None):
        reasons |= dict.fromkeys(uphill, "the classifier's logits have no gradient with respect to the images")
    return reasons


def _outputs(
    extractor: Features, training: Labelled, device: torch.device, batch_size: int, seed: int, progress: Progress
) -> Training:
    """Features and logits of training images, where both are finite."""
    found, labels = [], training.labels.cpu()
    keys = randomness.fold(randomness.example_keys(seed, torch.arange(len(labels))), "fitting/training")
    for rows in torch.split(torch.arange(len(labels)), batch_size):
        images = training.select(rows).images.to(device)
        images = as_float(images) if images.dtype == torch.uint8 else images.float()
        found.append(extractor.outputs(images, keys[rows].to(device)))
        progress(int(rows[-1]) + 1, len(labels))
    features, logits = (torch.cat(parts).double() for parts in zip(*found, strict=True))
    kept = features.isfinite().all(1) & logits.isfinite().all(1)
    return Training(
        features[kept].numpy(),
        logits[kept].numpy(),
        labels[kept].numpy().astype(np.int64),
        extractor.weight.numpy(),
        extractor.bias.numpy(),
    )
