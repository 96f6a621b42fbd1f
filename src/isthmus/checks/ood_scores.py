"""How foreign images look to a classifier: scores per image, larger for what is more out-of-distribution.

Any classifier has three: the entropy of its answer, what its answer lacks of certainty, and the energy of its logits.
A bottleneck has two more, which look at the code instead of the answer (Alemi et al. 2018, "Uncertainty in the
variational information bottleneck"; Fischer 2020, §3.1.3): the rate R = log e(z|x) − log m(z), how far the image's code
lies from all that is expected, and ReX = log e(z|x) − log b(z|ŷ), how far from the codes of the class that it is taken
for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isthmus import metrics
from isthmus.checks.context import answer
from isthmus.checks.views import MEAN, STOCHASTIC, finite, in_mode

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor, nn

Scores = dict[str, NDArray[np.float64]]

SCORES = {
    "entropy": "entropy",
    "max_probability": "maximum probability",
    "energy": "energy",
    "rate": "rate R",
    "residual": "ReX to the predicted class",
}
"""Each score as the page names it. Those of a stochastic mode begin with ``stochastic_``; R and ReX have no modes."""

SAMPLES = 16
_LEVEL = 1e-4  # of logits: a smaller difference is rounding


class Judged(Protocol):
    """What is judged: a check's context, or what :func:`isthmus.audits.classifier.adopt` gives."""

    @property
    def model(self) -> nn.Module:
        """From images to logits; the mean mode of a bottleneck."""

    @property
    def stochastic(self) -> nn.Module | None:
        """The stochastic mode, where there is one."""

    @property
    def bottleneck(self) -> nn.Module | None:
        """The model itself, where it is a bottleneck."""


class Images(Protocol):
    """A tensor N×C×H×W of images in [0, 1], or what gives some of them when it is asked for a slice."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Tensor: ...


def scores(
    judged: Judged,
    images: Images,
    keys: Int[Tensor, " n"] | None = None,
    *,
    samples: int = SAMPLES,
    batch_size: int = 256,
    seed: int = 0,
    known: Mapping[str, NDArray[Any]] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Scores:
    """All scores that a classifier has, float64[n] each, by the names of :data:`SCORES`.

    NaN where the answer to an image is not finite. No score depends on the batch size beyond rounding.

    Args:
        judged: such as ``isthmus.audits.classifier.adopt(model, images)``.
        images: in [0, 1], on the model's device.
        keys: what the noise of each image derives from; from ``seed`` and its position where None.
        samples: codes drawn for each image, over which rate and ReX are averaged; 0 for the mean of e(z|x) instead.
        known: logits that need no pass, by mode ("mean", "stochastic").
        progress: called with (done, total) images.
    """
    import torch

    from isthmus.core import randomness
    from isthmus.core.preserve_state import preserve_state

    known = known or {}
    modes = {MEAN: judged.model} | ({} if judged.stochastic is None else {STOCHASTIC: judged.stochastic})
    logits: dict[str, list[NDArray[Any]]] = {mode: [] for mode in modes if mode not in known}
    codes: list[Scores] = []
    if len(images) == 0:
        return {}
    device = images[:1].device
    keys = randomness.example_keys(seed, torch.arange(len(images), device=device)) if keys is None else keys
    with preserve_state(judged.model, device, seed), torch.no_grad():
        for start in range(0, len(images), batch_size):
            progress(start, len(images))
            part, own = images[start : start + batch_size], keys[start : start + batch_size]
            for mode, found in logits.items():
                found.append(answer(modes[mode], part, own).numpy())
            codes.append(_of_codes(judged, part, own, samples))
    answers = {mode: known[mode] if mode in known else np.concatenate(logits[mode]) for mode in modes}
    of_answers = {in_mode(name, mode): of for mode in modes for name, of in _of_logits(answers[mode], mode).items()}
    return of_answers | {name: np.concatenate([part[name] for part in codes]) for name in codes[0]}


def _of_logits(logits: NDArray[Any], mode: str) -> Scores:
    """Scores of an answer; a stochastic mode answers with log-probabilities, which have no energy."""
    asked = {"entropy": metrics.entropy, "max_probability": metrics.least_confidence}
    if mode == MEAN:
        asked["energy"] = metrics.energy
    answered = finite(logits)
    found = {name: np.full(len(logits), np.nan) for name in asked}
    for name, score in asked.items():
        found[name][answered] = score(logits[answered])
    return found


def _of_codes(judged: Judged, images: Tensor, keys: Tensor, samples: int) -> Scores:
    import torch

    from isthmus.core import randomness
    from isthmus.information.measures import Measures

    names = {"rate", "residual"} - set(_without_code(judged))
    if not names:
        return {}
    model: Any = judged.bottleneck
    encoder = model.encode(images.clone())
    shape = (samples, model.noise_dim)
    noise = randomness.normal(keys, shape).transpose(0, 1) if samples else torch.zeros(1, len(keys), shape[1])
    codes = model.draw(encoder, noise.to(encoder.mean))
    lowest = codes.levels[0]  # which alone sees the image
    if _of_the_batch(model):
        lowest = replace(lowest, marginal=None)
    found = Measures(lowest, codes.predictions())
    return {name: getattr(found, name).double().cpu().numpy() for name in sorted(names)}


def left_out(judged: Judged, logits: NDArray[Any]) -> dict[str, str]:
    """Scores that a classifier does not have, each with the reason.

    Args:
        logits: the mean mode's, of images of its own distribution.
    """
    missing = _without_code(judged)
    if level := _fixed_level(logits[finite(logits)]):
        missing["energy"] = level
    return missing


def _without_code(judged: Judged) -> dict[str, str]:
    if judged.bottleneck is None or judged.stochastic is None:
        return dict.fromkeys(("rate", "residual"), "the classifier has no random code")
    model: Any = judged.bottleneck
    if model.backward_encoder is not None:
        return {}
    missing = {"residual": "the model has no backward encoder b(z|y)"}
    if model.marginal is None or _of_the_batch(model):
        missing["rate"] = "the model has neither a marginal m(z) that stays the same nor a backward encoder b(z|y)"
    return missing


def _of_the_batch(model: Any) -> bool:
    """Whether m(z) is made of the images at hand, to which none of them is foreign."""
    from isthmus.models.marginals import BatchMarginal

    return isinstance(model.marginal, BatchMarginal)


def _fixed_level(logits: NDArray[Any]) -> str:
    """Why the level of these logits says nothing, which is what energy looks at; empty where it may."""
    if len(logits) == 0 or np.ptp(logits) == 0:
        return ""
    if np.abs(metrics.energy(logits)).max() < _LEVEL:
        return "the logits are log-probabilities, whose energy is always 0"
    if np.abs(logits.max(axis=1)).max() == 0:
        return "the logits are relative to the largest, so that they have no level"
    fixed = np.ptp(logits, axis=0) == 0
    relative = bool(fixed.any()) and len(logits) > 1
    return "the logits are relative to one class's, so that they have no level" if relative else ""
