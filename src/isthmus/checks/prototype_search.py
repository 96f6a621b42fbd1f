"""Prototypes of classes, grown out of noise along a classifier's gradient, and how they stand to real images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn

    from isthmus.attacks.engine.batch import Batch
    from isthmus.attacks.engine.counted_model import CountedModel
    from isthmus.checks.class_prototypes import Config
    from isthmus.checks.context import Context

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Prototypes:
    """What grew out of noise in one mode, k images.

    Attributes:
        images: float32[k, c, h, w], in units of images in [0, 1], though nothing holds them there.
        steps: int[k], −1 where they were not enough.
        confidence: probability of the class, float[k]; NaN where logits are not finite.
        forward_passes, backward_passes: in example-passes.
    """

    images: NDArray[np.float32]
    steps: NDArray[np.int64]
    confidence: Floats
    forward_passes: int
    backward_passes: int

    @property
    def reached(self) -> NDArray[np.bool_]:
        """Whether a prototype got to the confidence that was asked for."""
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
        """From images n×c×h×w."""
        mean, std = images.mean((0, 2, 3), dtype=np.float64), images.std((0, 2, 3), dtype=np.float64)
        centred = (images - mean[:, None, None]).reshape(len(images), -1)
        return cls(centred, labels, images.shape[1:], mean, std)

    def around(self, images: NDArray[Any]) -> Floats:
        """Other images less the mean, float[k, c·h·w]."""
        centred: Floats = (images - self.mean[:, None, None]).reshape(len(images), self.centred.shape[1])
        return centred

    def class_means(self, labels: NDArray[np.int64]) -> Floats:
        """Of each of these classes the mean less the population's, float[k, c·h·w]; NaN without an image of it."""
        means = {
            label: own.mean(0) if len(own := self.centred[self.labels == label]) else np.full(own.shape[1], np.nan)
            for label in np.unique(labels)
        }
        return np.array([means[label] for label in labels])

    def similarities(self) -> Floats:
        """The cosine of each image with the mean of the others of its class, where there are others."""
        found = [np.empty(0)]
        for label in np.unique(self.labels):
            own = self.centred[self.labels == label]
            if len(own) > 1:
                found.append(cosine(own, (own.sum(0) - own) / (len(own) - 1)))
        return np.concatenate(found)


def cosine(first: Floats, second: Floats) -> Floats:
    """Of each row with the row of the other; NaN where either is NaN or all zeros."""
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = (first * second).sum(1)
    cosines: Floats = np.divide(products, norms, out=np.full(products.shape, np.nan), where=norms > 0)
    return cosines


def grow(
    model: nn.Module,
    context: Context,
    config: Config,
    classes: NDArray[np.int64],
    population: Population,
    progress: Callable[[int, int], None],
) -> Prototypes:
    """From noise around the population's mean, x ← x − α·g/‖g‖₂ until the class is predicted with full confidence.

    A prototype's noise depends on the audit's seed, its class and how many of the class come before it.

    Raises:
        ModelError: the model fails, or has no gradient.
    """
    import torch

    from isthmus.attacks.engine.batch import Batch
    from isthmus.attacks.engine.counted_model import CountedModel
    from isthmus.core.preserve_state import device_of, preserve_state
    from isthmus.core.randomness import example_keys, fold, normal

    device, goals = device_of(model, context.images), torch.from_numpy(classes)
    number = torch.tensor([int((classes[:at] == label).sum()) for at, label in enumerate(classes)])
    keys = fold(example_keys(context.seed, goals), "class_prototypes/number", number)
    mean, std = (torch.from_numpy(of).float().view(-1, 1, 1).to(device) for of in (population.mean, population.std))
    parts = []
    with preserve_state(model, device, context.seed):
        oracle = CountedModel(model)
        for rows in torch.split(torch.arange(len(goals)), context.batch_size):
            own, wanted = keys[rows].to(device), goals[rows].to(device)
            start = mean + config.noise * std * normal(fold(own, "class_prototypes/start"), population.shape)
            parts.append(_ascend(oracle, Batch(start, wanted, own, targets=wanted), config))
            progress(int(rows[-1]) + 1, len(goals))
    images, steps, confidence = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return Prototypes(images, steps, confidence, oracle.forward_passes, oracle.backward_passes)


def _ascend(oracle: CountedModel, batch: Batch, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Images, steps and confidence of a batch, each as it was when it got there, or else at the end.

    Who is there asks for no more passes.
    """
    import torch

    from isthmus.attacks.unbounded import DIRECTIONS

    images, steps = batch.images.clone(), torch.full_like(batch.labels, -1)
    confidence = torch.full(steps.shape, torch.nan, dtype=torch.float64, device=steps.device)
    rows = torch.arange(len(batch), device=steps.device)
    for step in range(config.steps + 1):
        part, x = batch.take(rows), images[rows]
        objective = (lambda logits, of=part: of.ascend(config.loss, logits)) if step < config.steps else None
        answer = oracle.query(x, part.keys, objective, draw=step)
        chances = answer.logits.double().softmax(1).gather(1, part.labels[:, None]).squeeze(1)
        confidence[rows] = chances.where(answer.finite, torch.nan)
        there = confidence[rows] >= config.confidence
        steps[rows[there]] = step
        rows = rows[~there]
        if objective is None or not len(rows):
            break
        images[rows] = DIRECTIONS["l2"].step(x[~there], answer.gradient[~there], config.step_size)
    return images.cpu(), steps.cpu(), confidence.cpu()
