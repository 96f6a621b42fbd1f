"""Class prototypes: images that maximise a class score, found by gradient ascent from noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from isthmus import metrics
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.unbounded import DIRECTIONS
from isthmus.checks.check import Check, arrays_of, metrics_of
from isthmus.checks.context import MEAN, Context, Progress
from isthmus.core.errors import ConfigError
from isthmus.core.format import listed, percent
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.core.randomness import example_keys, fold, normal
from isthmus.core.types import CheckResult, Metric, Metrics, Status

SHOWN = 20
"""Prototypes on the page, at most."""

_CLASSES_NAMED = 5  # in the reason

Floats = NDArray[np.float64]


class ClassPrototypes(Check):
    """From X ~ N(μ, (σ/100)²), descend the cross-entropy of a class in X until it is predicted with full confidence.

    After "A Rate-Distortion Theory of Adversarial Examples", figure 4 (reverse channel), where a model of little excess
    capacity gives legible digits in about 100 steps. μ and σ are mean and standard deviation of each channel over all
    pixels of the audited images: as in the paper, whose images are whitened, the start has no shape. Steps have one
    length along the gradient, and a prototype x is not confined to [0, 1].

    Metrics by mode: ``reached``, the fraction of prototypes that reached the confidence; and means over these of
    ``steps``; ``distance`` ‖x − μ‖₂; ``relative_distance``, that over the mean of the audited images'; and
    ``similarity``, the cosine of x − μ with m − μ, where m is the mean of the class's audited images. Without a mode:
    ``image_similarity``, that of the audited images, each with the mean of the others of its class. A prototype close
    to the start and unlike its class is a fooling image (Nguyen et al. 2015, arXiv:1412.1897).

    A measurement without a threshold.

    Arrays, in mean mode and again with ``stochastic_`` before the name: ``prototypes`` float32[k, c, h, w];
    ``prototype_steps`` int[k], −1 if they were not enough; ``prototype_confidence`` float[k], NaN if logits are not
    finite. And ``prototype_class`` int[k]; ``class_means`` float32[up to 20, c, h, w], of the classes that the page
    shows, NaN if no image of one was audited.

    Attributes:
        each: prototypes of each class, from different noise.
        classes: which classes; all if None.
        confidence: at which the ascent ends; 0.9995 is 1.000 to three decimals.
        step_size: length of a step, in units of images in [0, 1].
        steps: largest number of steps.
        noise: standard deviation of the initial noise, as a fraction of the images'.
        loss: what the steps descend; "log_odds" has the direction of the cross-entropy, without its rounding to zero.
    """

    name: Literal["class_prototypes"] = "class_prototypes"
    each: Annotated[int, Field(gt=0)] = 1
    classes: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.9995
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    steps: Annotated[int, Field(gt=0)] = 1000
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    loss: Literal["ce", "margin", "log_odds", "dlr"] = "log_odds"

    def run(self, context: Context) -> CheckResult:
        """Find prototypes in every mode.

        Raises:
            ConfigError: a class that the classifier does not have.
            ModelError: the model has no gradient.
        """
        classes = self._classes(context.num_classes)
        population = Population.of(context.images.cpu().numpy(), context.truth)
        by_mode = context.by_mode(lambda model, progress: self._search(model, context, classes, population, progress))
        found = metrics_of({mode: _metrics(own, classes, population, context.seed) for mode, own in by_mode.items()})
        images = metrics.mean(_known(population.similarities()), "cosine", context.seed)
        whole = Metrics([*found, images.named("image_similarity")])
        means = population.class_means(classes[:SHOWN]).reshape(-1, *population.shape) + population.mean[:, None, None]
        arrays = {"prototype_class": classes, "class_means": means.astype(np.float32)}
        return CheckResult(
            check=self.name,
            status=Status.MEASURED,
            reason=self._reason(whole, by_mode, classes),
            metrics=whole,
            details={
                "mean": population.mean.tolist(),
                "passes": {mode: [of.forward_passes, of.backward_passes] for mode, of in by_mode.items()},
            },
            arrays=arrays | arrays_of({mode: own.arrays for mode, own in by_mode.items()}),
        )

    def _classes(self, classes: int) -> NDArray[np.int64]:
        """The class of each prototype: one of every class before the second of any."""
        chosen = self.classes or tuple(range(classes))
        if max(chosen) >= classes:
            raise ConfigError(f"The classifier has the classes 0 to {classes - 1}; there is no class {max(chosen)}.")
        return np.tile(np.array(sorted(set(chosen)), dtype=np.int64), self.each)

    def _search(
        self,
        model: nn.Module,
        context: Context,
        classes: NDArray[np.int64],
        population: Population,
        progress: Progress,
    ) -> Prototypes:
        """From noise around the population's mean, x ← x − α·g/‖g‖₂ until the class is predicted with full confidence.

        A prototype's noise depends on the audit's seed, its class and how many of the class come before it.
        """
        device, goals = device_of(model, context.images), torch.from_numpy(classes)
        number = torch.tensor([int((classes[:at] == label).sum()) for at, label in enumerate(classes)])
        keys = fold(example_keys(context.seed, goals), "class_prototypes/number", number)
        mean, std = (torch.from_numpy(of).float().view(-1, 1, 1).to(device) for of in (population.mean, population.std))
        parts = []
        with preserve_state(model, device, context.seed):
            counted = CountedModel(model)
            for rows in torch.split(torch.arange(len(goals)), context.batch_size):
                own, wanted = keys[rows].to(device), goals[rows].to(device)
                start = mean + self.noise * std * normal(fold(own, "class_prototypes/start"), population.shape)
                parts.append(self._ascend(counted, Batch(start, wanted, own, targets=wanted)))
                progress(int(rows[-1]) + 1, len(goals))
        images, steps, confidence = (torch.cat(values).numpy() for values in zip(*parts, strict=True))
        return Prototypes(images, steps, confidence, counted.forward_passes, counted.backward_passes)

    def _ascend(self, counted: CountedModel, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Images, steps and confidence of a batch, each as it was when it reached the confidence, or else at the end.

        A prototype that reached it takes no more passes.
        """
        images, steps = batch.images.clone(), torch.full_like(batch.labels, -1)
        confidence = torch.full(steps.shape, torch.nan, dtype=torch.float64, device=steps.device)
        rows = torch.arange(len(batch), device=steps.device)
        for step in range(self.steps + 1):
            left, x = batch.take(rows), images[rows]
            objective = (lambda logits, of=left: of.ascend(self.loss, logits)) if step < self.steps else None
            answer = counted.query(x, left.keys, objective, draw=step)
            probabilities = answer.logits.double().softmax(1).gather(1, left.labels[:, None]).squeeze(1)
            confidence[rows] = probabilities.where(answer.finite, torch.nan)
            there = confidence[rows] >= self.confidence
            steps[rows[there]] = step
            rows = rows[~there]
            if objective is None or not len(rows):
                break
            images[rows] = DIRECTIONS["l2"].step(x[~there], answer.gradient[~there], self.step_size)
        return images.cpu(), steps.cpu(), confidence.cpu()

    def _reason(self, found: Metrics, by_mode: dict[str, Prototypes], classes: NDArray[np.int64]) -> str:
        names = ("reached", "steps", "relative_distance", "similarity")
        reached, steps, near, similar = (found.one(name, mode=MEAN) for name in names)
        images = found.one("image_similarity").value
        reason = f"{int(by_mode[MEAN].reached.sum())} of {reached.n} prototypes reach a confidence of "
        reason += f"{self.confidence:g}"
        if steps.value is not None:
            reason += f", in {steps.value:.0f} steps of {self.step_size:g} on average"
        if near.value is not None:
            reason += f"; their distance from the mean is {percent(near.value)} of the images'"
        if similar.value is not None:
            reason += f", and their cosine with the mean of their class is {similar.value:.2f}"
            reason += "" if images is None else f" (of images: {images:.2f})"
        for mode, own in by_mode.items():
            short = [str(label) for label in np.unique(classes[~own.reached])]
            if short:
                which = listed(short)
                if len(short) > _CLASSES_NAMED:
                    which = f"{len(short)} classes, such as {', '.join(short[:_CLASSES_NAMED])}"
                reason += f"; {self.steps} steps are not enough in {mode} mode for {which}"
        return f"{reason}."


@dataclass(frozen=True, eq=False)
class Prototypes:
    """The prototypes of one mode, k images.

    Attributes:
        images: float32[k, c, h, w], in units of images in [0, 1], but not confined to this range.
        steps: int[k], −1 if they were not enough.
        confidence: probability of the class, float[k]; NaN if logits are not finite.
        forward_passes, backward_passes: in example-passes.
    """

    images: NDArray[np.float32]
    steps: NDArray[np.int64]
    confidence: Floats
    forward_passes: int
    backward_passes: int

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of the check's result."""
        return {
            "prototypes": self.images,
            "prototype_steps": self.steps,
            "prototype_confidence": self.confidence,
        }

    @property
    def reached(self) -> NDArray[np.bool_]:
        """Whether a prototype reached the confidence."""
        return np.asarray(self.steps >= 0, dtype=np.bool_)


@dataclass(frozen=True, eq=False)
class Population:
    """Images around the mean of their channels.

    Attributes:
        centred: float[n, c·h·w], the images less that mean.
        labels: int[n].
        shape: c, h, w.
        mean, std: float[c], over all pixels of all images.
    """

    centred: Floats
    labels: NDArray[np.int64]
    shape: tuple[int, ...]
    mean: Floats
    std: Floats

    @classmethod
    def of(cls, images: NDArray[Any], labels: NDArray[np.int64]) -> Population:
        """Build from images n×c×h×w."""
        mean, std = images.mean((0, 2, 3), dtype=np.float64), images.std((0, 2, 3), dtype=np.float64)
        centred = (images - mean[:, None, None]).reshape(len(images), -1)
        return cls(centred, labels, images.shape[1:], mean, std)

    def around(self, images: NDArray[Any]) -> Floats:
        """Other images less the mean, float[k, c·h·w]."""
        centred: Floats = (images - self.mean[:, None, None]).reshape(len(images), self.centred.shape[1])
        return centred

    def class_means(self, labels: NDArray[np.int64]) -> Floats:
        """The mean of each of these classes less the population's, float[k, c·h·w]; NaN without an image of it."""
        means = {
            label: own.mean(0) if len(own := self.centred[self.labels == label]) else np.full(own.shape[1], np.nan)
            for label in np.unique(labels)
        }
        return np.array([means[label] for label in labels])

    def similarities(self) -> Floats:
        """The cosine of each image with the mean of the others of its class, if there are others."""
        found = [np.empty(0)]
        for label in np.unique(self.labels):
            own = self.centred[self.labels == label]
            if len(own) > 1:
                found.append(cosine(own, (own.sum(0) - own) / (len(own) - 1)))
        return np.concatenate(found)


def cosine(first: Floats, second: Floats) -> Floats:
    """Cosine of each row with the row of the other; NaN if either is NaN or all zeros."""
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = (first * second).sum(1)
    cosines: Floats = np.divide(products, norms, out=np.full(products.shape, np.nan), where=norms > 0)
    return cosines


def _metrics(own: Prototypes, classes: NDArray[np.int64], population: Population, seed: int) -> list[Metric]:
    there = own.reached
    away = population.around(own.images[there])
    distance = np.linalg.norm(away, axis=1)
    usual = float(np.linalg.norm(population.centred, axis=1).mean())
    similarity = cosine(away, population.class_means(classes[there])) if there.any() else np.empty(0)
    found = [
        metrics.accuracy(there).named("reached"),
        metrics.mean(own.steps[there], "steps", seed).named("steps"),
        metrics.mean(distance, "ℓ2", seed).named("distance"),
        metrics.mean(distance / usual if usual else [], "of an image's", seed).named("relative_distance"),
        metrics.mean(_known(similarity), "cosine", seed).named("similarity"),
    ]
    return [m if m.value is not None else m.model_copy(update={"note": "none to measure"}) for m in found]


def _known(values: Floats) -> Floats:
    return values[~np.isnan(values)]
