"""What one of the tables' models sends back from label to image: what a cell of figure 4 holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from isthmus.checks.class_prototypes_page import enlarged
from isthmus.checks.prototype_search import Population, cosine
from isthmus.core.types import CheckResult
from isthmus.models.learner import Learner
from isthmus.studies.old.drawing import packed
from isthmus.studies.old.evidence import ends
from isthmus.studies.old.laboratory import ask, judged
from isthmus.studies.rate_distortion.printed import Model
from isthmus.studies.rate_distortion.whitened import inside
from isthmus.studies.store import Experiment, ResultStore

if TYPE_CHECKING:
    from isthmus.studies.rate_distortion.figure_4 import Config

METRICS = ("steps", "relative_distance", "similarity", "image_similarity")


def cells(config: Config, bench: ResultStore) -> list[Experiment]:
    """A cell for every model and seed."""
    return [_cell(config, bench, model, seed) for seed in range(config.seeds) for model in config.models]


def _cell(config: Config, bench: ResultStore, model: Model, seed: int) -> Experiment:
    """``{"reached": [prototypes, of all], "own_class": [nearest to their class's mean, of those that got there], each
    of METRICS: [value, low, high] or None, "pictures": of the first seed, …}``.
    """
    recipe = config.recipe(model, config.batch_sizes[0], "original", seed)
    settings = config.model_dump(mode="json", include={"images", "each", "space", "step_size", "confidence", "steps"})

    def measure() -> dict[str, Any]:
        run = bench.train(recipe)
        images, labels, indices, classes = judged(config.data, config.train_limit, config.images)
        learner, unit = run.load(), 1.0
        if config.space == "whitened":
            seen = inside(learner, images)
            learner, images, unit = seen.model, seen.images, seen.unit
        check = {
            "name": "class_prototypes",
            "each": config.each,
            "confidence": config.confidence,
            "step_size": config.step_size / unit,
            "steps": config.steps,
        }
        found = ask(learner, images, labels, indices, check, bench.telling("growing prototypes"))
        population = Population.of(images.numpy(), labels.numpy())
        there = found.arrays["prototype_steps"] >= 0
        return {
            "model": model,
            "seed": seed,
            "n": len(labels),
            "reached": [int(there.sum()), len(there)],
            "own_class": [_own_class(found, population, there), int(there.sum())],
            **{name: ends(found.metrics[name]) for name in METRICS},
            "test_accuracy": run.info()["result"]["test_accuracy"],
            "pictures": _pictures(found, learner, images, labels, classes, population) if seed == 0 else None,
        }

    return Experiment(
        f"{model}, seed {seed}, prototypes", {"recipe": recipe, "measured": "prototypes", **settings}, measure
    )


def _own_class(found: CheckResult, population: Population, there: np.ndarray) -> int:
    """How many prototypes that got there are nearer, as a cosine, to the mean of their class than to any other's."""
    names = np.unique(population.labels)
    means = population.class_means(names)
    grown = population.around(found.arrays["prototypes"][there])
    right = 0
    for pattern, label in zip(grown, found.arrays["prototype_class"][there], strict=True):
        alike = cosine(np.broadcast_to(pattern, means.shape), means)
        right += int(not np.isnan(alike).all() and names[np.nanargmax(alike)] == label)
    return right


@torch.no_grad()
def _pictures(
    found: CheckResult,
    model: Learner,
    images: torch.Tensor,
    labels: torch.Tensor,
    classes: tuple[str, ...],
    population: Population,
) -> dict[str, list[list[str]]]:
    """Rows of pictures with captions, one a class: the first image, the first prototype, the mean."""
    rows: dict[str, list[list[str]]] = {"images": [], "prototypes": [], "means": []}
    mean = population.mean.tolist()
    device = next(model.parameters()).device
    # all judged images at once would be another batch than C was audited in
    for label in np.unique(population.labels).tolist():
        image = images[(labels == label).nonzero()[0]]
        chances = model(torch.cat([image, images[:255]]).to(device))[0].softmax(0).cpu()
        said = f"{classes[int(chances.argmax())]}, {float(chances.max()):.3f}"
        rows["images"].append([packed(enlarged(image[0].numpy(), mean)[0]), said])
        own = int((found.arrays["prototype_class"] == label).argmax())
        steps = int(found.arrays["prototype_steps"][own])
        grown = enlarged(found.arrays["prototypes"][own], mean)[0]
        rows["prototypes"].append([packed(grown), f"{classes[label]}, {steps} steps" if steps >= 0 else "not there"])
        shape = population.shape
        centred = population.class_means(np.array([label]))[0].reshape(shape) + population.mean[:, None, None]
        rows["means"].append([packed(enlarged(centred.astype(np.float32), mean)[0]), classes[label]])
    return rows
