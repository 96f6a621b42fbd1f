"""Experiments of figures 4, 5 and 7: checks of the tables' models, also in the space of their whitened images."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.checks.class_prototypes import Population, cosine
from isthmus.core.errors import ConfigError
from isthmus.core.types import CheckResult, Coordinate, Metric
from isthmus.data.loading import load
from isthmus.models.backbones.layers import Normalize
from isthmus.models.learner import Learner
from isthmus.models.whitening import Whitening
from isthmus.report.sections.common import enlarged, picture
from isthmus.studies.blocks import packed
from isthmus.studies.measured import fraction
from isthmus.studies.rate_distortion.configs import NoiseConfig, PrototypesConfig, TransferConfig
from isthmus.studies.rate_distortion.experiments import each_model
from isthmus.studies.store import ResultStore, Stages
from isthmus.studies.trained_models import EvaluationImages, evaluation_images, run_check
from isthmus.training.run import Run

_BATCH = 500
_OWN = 100  # images of a model's own data, from which an audit learns its input shape
_SHOTS = ("zero_shot", "one_shot")
Rows = list[Metric]

# --- a model and the space in which its images are perturbed ---


@dataclass(frozen=True, eq=False)
class Inside:
    """A model that takes whitened images, scaled to [0, 1] as audits require.

    Attributes:
        images: of shape n×1×h×w; 0 and 1 are the least and the largest value of all.
        unit: length in whitened images of 1 in these.
        low: the least whitened value.
    """

    model: Learner
    images: Tensor
    unit: float = 1.0
    low: float = 0.0

    @property
    def origin(self) -> float:
        """The value of a whitened pixel of 0."""
        return -self.low / self.unit


def whitening(model: Learner) -> Whitening:
    """The whitening of a model.

    Raises:
        ConfigError: it has none.
    """
    if not isinstance(model.normalize, Whitening):
        raise ConfigError("This needs a model that whitens its images; give normalize.name=zca.")
    return model.normalize


@torch.no_grad()
def inside(model: Learner, images: Tensor) -> Inside:
    """The part of a model after its whitening, and the whitened images."""
    seen = torch.cat([whitening(model)(part) for part in torch.split(images, _BATCH)])
    low, high = float(seen.min()), float(seen.max())
    unit = high - low
    scaled = Normalize([-low / unit], [1 / unit])  # (x − mean) / std undoes the scaling to [0, 1]
    return Inside(_with_normalize(model, scaled), ((seen - low) / unit).clamp(0, 1), unit, low)


def without(model: Learner, images: Tensor) -> tuple[Learner, Tensor]:
    """The model without its whitening, and the images in grey and of the size that it then takes, in [0, 1]."""
    own = whitening(model)
    return _with_normalize(model, nn.Identity()), own.grey(images).view(-1, *own.shape).clamp(0, 1)


def _with_normalize(model: Learner, normalize: nn.Module) -> Learner:
    changed = copy.deepcopy(model)
    changed.normalize = normalize
    return changed.eval()


def _perturbed(config: PrototypesConfig | NoiseConfig, run: Run) -> tuple[Inside, EvaluationImages]:
    """A model and the test images, in the space of the study."""
    data, model = evaluation_images(config.data, config.train_limit, config.images), run.load()
    seen = inside(model, data.images) if config.space == "whitened" else Inside(model, data.images)
    return seen, replace(data, images=seen.images)


# --- figure 4 ---


def prototypes(config: PrototypesConfig, store: ResultStore) -> Stages:
    """Figure 4: images that a model assigns to a class with full confidence, grown from noise."""

    def measure(run: Run) -> tuple[Rows, dict[str, Any]]:
        seen, data = _perturbed(config, run)
        check = {
            "name": "class_prototypes",
            "step_size": config.step_size / seen.unit,
            **config.model_dump(include={"each", "confidence", "steps"}),
        }
        found = run_check(seen.model, data, check, store.telling("growing prototypes"))
        population = Population.of(data.images.numpy(), data.labels.numpy())
        reached = found.arrays["prototype_steps"] >= 0
        names = ("steps", "relative_distance", "similarity", "image_similarity")
        rows = [
            fraction("reached", int(reached.sum()), len(reached)),
            fraction("own_class", _own_class(found, population, reached), len(reached)),
            *_rows(found.metrics.get(name, mode="mean") or found.metrics.one(name) for name in names),
        ]
        return rows, {"pictures": _pictures(found, seen.model, data, population)}

    settings = ("images", "each", "space", "step_size", "confidence", "steps")
    return each_model(config, store, "prototypes", settings, measure)


def _rows(found: Iterable[Metric]) -> Rows:
    """The measured ones, without the coordinates of the check."""
    return [metric.model_copy(update={"coords": {}}) for metric in found if metric.value is not None]


def _own_class(found: CheckResult, population: Population, reached: np.ndarray) -> int:
    """How many prototypes at full confidence have the largest cosine with the mean of their own class."""
    names = np.unique(population.labels)
    means = population.class_means(names)
    grown = population.around(found.arrays["prototypes"][reached])
    right = 0
    for pattern, label in zip(grown, found.arrays["prototype_class"][reached], strict=True):
        alike = cosine(np.broadcast_to(pattern, means.shape), means)
        right += int(not np.isnan(alike).all() and names[np.nanargmax(alike)] == label)
    return right


@torch.no_grad()
def _pictures(
    found: CheckResult, model: Learner, data: EvaluationImages, population: Population
) -> dict[str, list[list[str]]]:
    """Rows of pictures with captions, one for each class: the first image, the first prototype, the mean."""
    rows: dict[str, list[list[str]]] = {"image": [], "prototype": [], "mean of the class": []}

    def add(row: str, image: np.ndarray, caption: str) -> None:
        change = image - population.mean.astype(np.float32)[:, None, None]
        rows[row].append([packed(picture(enlarged(change)[0], caption).image), caption])

    device = next(model.parameters()).device
    for label in np.unique(population.labels).tolist():
        name, image = data.classes[label], data.images[(data.labels == label).nonzero()[0]]
        # C's predictions depend on the batch, so it is as large as in the audit
        probabilities = model(torch.cat([image, data.images[:255]]).to(device))[0].softmax(0).cpu()
        add("image", image[0].numpy(), f"{data.classes[int(probabilities.argmax())]}, {float(probabilities.max()):.3f}")
        own = int((found.arrays["prototype_class"] == label).argmax())
        steps = int(found.arrays["prototype_steps"][own])
        add("prototype", found.arrays["prototypes"][own], f"{name}, {steps} steps" if steps >= 0 else "not reached")
        centred = population.class_means(np.array([label]))[0].reshape(population.shape)
        add("mean of the class", (centred + population.mean[:, None, None]).astype(np.float32), name)
    return rows


# --- figure 5 ---


def noise(config: NoiseConfig, store: ResultStore) -> Stages:
    """Figure 5: information and accuracy over the signal-to-noise ratio; those of clean images are separate rows."""

    def measure(run: Run) -> tuple[Rows, dict[str, Any]]:
        seen, data = _perturbed(config, run)
        options = config.model_dump(mode="json", include={"noises", "high", "low", "spacing"})
        check = {"name": "noise_robustness", **options, "origin": seen.origin}
        found = run_check(seen.model, data, check, store.telling("adding noise"))
        entropy, n = found.details["label_entropy_bits"], len(data)
        rows = [
            Metric(name="label_entropy", value=entropy, unit="bits", n=n),
            Metric(name="chance", value=2**-entropy, unit="fraction", n=n),
            *(row for kind in config.noises for row in _noisy(kind, found, n)),
        ]
        return rows, {}

    settings = ("images", "space", "noises", "high", "low", "spacing")
    return each_model(config, store, "noise", settings, measure)


def _noisy(kind: str, found: CheckResult, n: int) -> Iterator[Metric]:
    """Rows of one kind of noise; those of the clean image are named ``clean_...``."""
    kept = found.metrics.one("information_kept", mode="mean", noise=kind)
    yield kept.model_copy(update={"name": "kept", "coords": {"noise": kind}})
    for name, short in (("information_bits", "information"), ("accuracy", "accuracy")):
        clean = found.metrics.one(name, mode="mean")
        yield Metric(name=f"clean_{short}", value=clean.value, unit=clean.unit, n=n, coords={"noise": kind})
        for metric in found.metrics.select(name, mode="mean", noise=kind):
            if "snr" not in metric.coords:
                continue
            coords: dict[str, Coordinate] = {"noise": kind, "snr": metric.coords["snr"]}
            if name == "accuracy":
                yield fraction(short, round((metric.value or 0.0) * n), n, **coords)
            else:
                yield Metric(name=short, value=metric.value, unit=metric.unit, n=n, coords=coords)


# --- figure 7 ---


def transfer(config: TransferConfig, store: ResultStore) -> Stages:
    """Figure 7: accuracy and margins on another data set, zero-shot and after one example of each class."""

    def measure(run: Run) -> tuple[Rows, dict[str, Any]]:
        data, model = evaluation_images(config.data, config.train_limit, _OWN), run.load()
        if not config.whitened:
            model, images = without(model, data.images)
            data = replace(data, images=images)
        check = {
            "name": "dataset_transfer",
            "data": config.target,
            "images": config.images or len(load(config.target).test),
            **config.model_dump(include={"draws", "steps", "learning_rate", "degrees"}),
        }
        found = run_check(model, data, check, store.telling("on other data"))
        return _rows(map(_by_shots, found.metrics.select(mode="mean"))), {"bins": found.details["bins"]}

    settings = ("target", "images", "whitened", "draws", "steps", "learning_rate", "degrees")
    return each_model(config, store, "transfer", settings, measure)


def _by_shots(metric: Metric) -> Metric:
    """Named by its number of shots; differences of fractions, which may be negative, are in points."""
    signed = metric.name in ("gain", "overconfidence")
    name = f"{_SHOTS[int(metric.coords['shots'])]}_{metric.name}"
    return metric.model_copy(update={"name": name, "unit": "points" if signed else metric.unit})
