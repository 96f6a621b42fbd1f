"""Out-of-distribution scores of images, larger for images that are more out-of-distribution.

Any classifier has four: the entropy of its prediction, one minus its maximum probability, and the energy and the
maximum of its logits. Scores that need more, such as features of training images, are in :mod:`isthmus.checks.scores`.
A bottleneck has two that use the code instead of the prediction (Alemi et al. 2018, "Uncertainty in the variational
information bottleneck"; Fischer 2020, §3.1.3): the rate R = log e(z|x) − log m(z), the distance of the image's code
from all expected codes, and ReX = log e(z|x) − log b(z|ŷ), its distance from the codes of the predicted class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor, nn

from isthmus import metrics
from isthmus.checks.check import in_mode
from isthmus.checks.context import MEAN, STOCHASTIC, Progress, finite, predict, spread
from isthmus.checks.scores.fitting import FittedScores
from isthmus.checks.scores.score import Batch
from isthmus.core import randomness
from isthmus.core.preserve_state import preserve_state
from isthmus.information.measures import Measures
from isthmus.models.marginals import BatchMarginal

SCORES = {
    "entropy": "entropy",
    "max_probability": "maximum probability",
    "energy": "energy",
    "max_logit": "maximum logit",
    "rate": "rate R",
    "residual": "ReX to the predicted class",
}
"""Titles of the scores that every audit measures, if the classifier has them."""

TITLES = SCORES | {
    "mahalanobis": "Mahalanobis distance",
    "knn": "k-th nearest neighbour",
    "vim": "ViM",
    "react": "ReAct",
    "odin": "ODIN",
}
"""Titles of all scores of isthmus; any other score is shown by its name."""

SAMPLES = 16
_LEVEL = 1e-4  # of logits: a smaller difference is rounding


class Score(NamedTuple):
    """A score in a mode; R and ReX are of the code and have no mode."""

    name: str
    mode: str = ""

    @property
    def coords(self) -> dict[str, str]:
        """Coordinates of its metrics."""
        return {"score": self.name} | ({"mode": self.mode} if self.mode else {})

    @property
    def title(self) -> str:
        """Its name for readers: "entropy, stochastic"."""
        return TITLES.get(self.name, self.name) + (f", {STOCHASTIC}" if self.mode == STOCHASTIC else "")

    def array(self, images: str) -> str:
        """Name of the array with the scores of these images: "mnist_entropy", "stochastic_mnist_entropy"."""
        return in_mode(f"{images}_{self.name}", self.mode or MEAN)


Scores = dict[Score, NDArray[np.float64]]


class Classifier(Protocol):
    """A check's context, or the result of :func:`isthmus.audits.classifier.adopt`."""

    @property
    def model(self) -> nn.Module:
        """From images to logits; the mean mode of a bottleneck."""

    @property
    def stochastic(self) -> nn.Module | None:
        """The stochastic mode, if there is one."""

    @property
    def bottleneck(self) -> nn.Module | None:
        """The model itself, if it is a bottleneck."""


class Images(Protocol):
    """A tensor N×C×H×W of images in [0, 1], or an object that gives some of them for a slice."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Tensor: ...


@dataclass(frozen=True)
class Scorer:
    """All scores that a classifier has.

    Attributes:
        classifier: such as ``isthmus.audits.classifier.adopt(model, images)``.
        samples: codes drawn for each image, over which rate and ReX are averaged; 0 for the mean of e(z|x) instead.
        batch_size: images in a batch; no score depends on it beyond rounding.
        seed: of images without keys.
        fitted: further scores (:func:`isthmus.checks.scores.fitting.fit_scores`), of the mean mode.
    """

    classifier: Classifier
    samples: int = SAMPLES
    batch_size: int = 256
    seed: int = 0
    fitted: FittedScores = field(default_factory=FittedScores)

    def __call__(
        self,
        images: Images,
        keys: Int[Tensor, " n"] | None = None,
        logits: Mapping[str, NDArray[Any]] | None = None,
        progress: Progress = lambda _done, _total: None,
    ) -> Scores:
        """The scores of images, float64[n] each; NaN if the logits of an image are not finite.

        Args:
            images: in [0, 1], on the model's device.
            keys: the noise of each image derives from them; from ``seed`` and its position if None.
            logits: by mode, if they are known.
            progress: called with (done, total) images.
        """
        n = len(images)
        if n == 0:
            return {}
        model, stochastic = self.classifier.model, self.classifier.stochastic
        device = images[:1].device
        keys = randomness.example_keys(self.seed, torch.arange(n, device=device)) if keys is None else keys
        models = {MEAN: model} | ({} if stochastic is None else {STOCHASTIC: stochastic})
        predicted: dict[str, list[NDArray[Any]]] = {} if logits else {mode: [] for mode in models}
        others: list[Scores] = []
        with preserve_state(model, device, self.seed), torch.no_grad():
            for start in range(0, n, self.batch_size):
                progress(start, n)
                part, own = images[start : start + self.batch_size], keys[start : start + self.batch_size]
                for mode, found in predicted.items():
                    found.append(predict(models[mode], part, own).numpy())
                others.append(_of_codes(self.classifier, part, own, self.samples) | self._fitted(part, own))
        logits = logits or {mode: np.concatenate(found) for mode, found in predicted.items()}
        known = finite(logits[MEAN])
        further = {score: np.concatenate([part[score] for part in others]) for score in others[0]}
        further |= {score: spread(further[score][known], known) for score in further if score.mode}
        return logit_scores(logits) | further

    def _fitted(self, images: Tensor, keys: Tensor) -> Scores:
        batch = Batch(self.classifier.model, images, keys, self.fitted.extractor)
        return {Score(name, MEAN): score(batch) for name, score in self.fitted.scoring.items()}


def logit_scores(logits: Mapping[str, NDArray[Any]]) -> Scores:
    """Scores of predictions, by mode; a stochastic mode gives log-probabilities, which have no energy."""
    found: Scores = {}
    for mode, of in logits.items():
        measures = {"entropy": metrics.entropy, "max_probability": metrics.least_confidence}
        if mode == MEAN:
            measures |= {"energy": metrics.energy, "max_logit": metrics.negative_max_logit}
        known = finite(of)
        found |= {Score(name, mode): spread(measure(of[known]), known) for name, measure in measures.items()}
    return found


def _of_codes(classifier: Classifier, images: Tensor, keys: Tensor, samples: int) -> Scores:
    names = {"rate", "residual"} - set(_without_code(classifier))
    if not names:
        return {}
    model: Any = classifier.bottleneck
    encoder = model.encode(images.clone())
    shape = (samples, model.noise_dim)
    noise = randomness.normal(keys, shape).transpose(0, 1) if samples else torch.zeros(1, len(keys), shape[1])
    codes = model.draw(encoder, noise.to(encoder.mean))
    lowest = codes.levels[0]  # the only level that depends on the image directly
    if _of_the_batch(model):
        lowest = replace(lowest, marginal=None)
    found = Measures(lowest, codes.predictions())
    return {Score(name): getattr(found, name).double().cpu().numpy() for name in sorted(names)}


def unavailable(classifier: Classifier, logits: NDArray[Any]) -> dict[str, str]:
    """Scores that a classifier does not have, each with the reason.

    Args:
        logits: the mean mode's, of images of its own distribution.
    """
    missing = _without_code(classifier)
    if reason := _no_level(logits[finite(logits)]):
        missing |= dict.fromkeys(("energy", "max_logit"), reason)
    return missing


def _without_code(classifier: Classifier) -> dict[str, str]:
    if classifier.bottleneck is None or classifier.stochastic is None:
        return dict.fromkeys(("rate", "residual"), "the classifier has no random code")
    model: Any = classifier.bottleneck
    if model.backward_encoder is not None:
        return {}
    missing = {"residual": "the model has no backward encoder b(z|y)"}
    if model.marginal is None or _of_the_batch(model):
        missing["rate"] = "the model has neither a fixed marginal m(z) nor a backward encoder b(z|y)"
    return missing


def _of_the_batch(model: Any) -> bool:
    """Whether m(z) is made of the batch itself, so that no image is out of distribution."""
    return isinstance(model.marginal, BatchMarginal)


def _no_level(logits: NDArray[Any]) -> str:
    """Why the level of these logits is meaningless, and with it energy and maximum; "" if it may be meaningful."""
    if len(logits) == 0 or np.ptp(logits) == 0:
        return ""
    if np.abs(metrics.energy(logits)).max() < _LEVEL:
        return "the logits are log-probabilities, which have no level: their energy is always 0"
    if np.abs(logits.max(axis=1)).max() == 0:
        return "the logits are relative to the largest, so that they have no level"
    fixed = np.ptp(logits, axis=0) == 0
    relative = bool(fixed.any()) and len(logits) > 1
    return "the logits are relative to one class's, so that they have no level" if relative else ""
