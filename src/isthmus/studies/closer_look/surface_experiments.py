"""Experiments of figures 4 and 10: the choice of a model, and loss surfaces around its test images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from isthmus.attacks.loss_surface import Surface, loss_surface, random_signs, worst_signs
from isthmus.attacks.threats import Linf
from isthmus.core.errors import ConfigError, unknown
from isthmus.core.randomness import example_keys
from isthmus.studies.closer_look.configs import SurfaceConfig
from isthmus.studies.closer_look.experiments import ensemble
from isthmus.studies.closer_look.surfaces import MOSTLY
from isthmus.studies.image_models import ModelSpec
from isthmus.studies.measured import Measured, fraction, measured
from isthmus.studies.store import Experiment, ResultStore, Stages, Tell
from isthmus.studies.trained_models import TrainedModel, correct, experiment, trained

_DECIDING = {"eps", "pgd", "classes", "measured", "direction_starts", "grid", "images"}  # beside the recipe


def surfaces(config: SurfaceConfig, store: ResultStore) -> Stages:
    """The models, trained and ranked; then the surfaces of the best."""
    strong = ensemble(config.eps, config.ensemble)
    models = [ModelSpec(config.kind, config.tradeoffs[0], seed) for seed in range(config.seeds)]
    ranked = yield [experiment(config, store, model, strong, parameter=config.parameter) for model in models]
    seed = best_seed(ranked)
    if seed is None:
        return
    model = ModelSpec(config.kind, config.tradeoffs[0], seed)

    def measure() -> dict[str, Any]:
        return _measured(trained(config, store, model), config, model, store.telling("surfaces"))

    about = {"recipe": config.recipe(model), **config.model_dump(mode="json", include=_DECIDING)}
    yield [Experiment(f"{model.title}, seed {seed}, surfaces", about, measure)]


def best_seed(ranked: list[Mapping[str, Any]] | Any) -> int | None:
    """The seed of the model with the highest accuracy under the ensemble; None if all collapsed."""
    found: dict[int, float] = {}
    for each in map(Measured.from_plain, ranked):
        rows = {row.name: row for row in each.metrics}
        if not each.collapsed and rows["clean_accuracy"].value:
            found[int(rows["robust_accuracy"].coords["seed"])] = rows["robust_accuracy"].value or 0.0
    return max(found, key=lambda seed: found[seed]) if found else None


def _measured(found: TrainedModel, config: SurfaceConfig, model: ModelSpec, tell: Tell) -> dict[str, Any]:
    """Loss surfaces of a model in mean mode around test images that it classifies correctly.

    Details: offsets u (and v) of the grid; for the first image of each class, the cross-entropy on its grid, nats,
    towards PGD's worst perturbation and towards a random one; and for every image how flat both are.

    Raises:
        ConfigError: a class that the data do not have.
    """
    data, network = found.data, found.modes["mean"]
    shown, others = _rows(found, config)
    rows = torch.cat([shown, others])
    images, labels, indices = data.images[rows], data.labels[rows], data.indices[rows]
    keys = example_keys(0, indices)
    options = {"restarts": config.direction_starts, **config.pgd.model_dump()}
    directions = {
        "worst": worst_signs(network, images, labels, Linf(config.eps), keys, **options),
        "random": random_signs(keys, images.shape[1:]),
    }
    across = random_signs(keys, images.shape[1:], second=True)
    pictures: list[dict[str, Any]] = []
    flat: dict[str, list[float]] = {}
    offsets: list[float] = []
    for name, first in directions.items():
        surface = loss_surface(network, images, labels, first, across, config.eps, steps=config.grid)
        flat[name] = surface.flat()[len(shown) :].tolist()
        for row in range(len(shown)):
            facts = {"class": data.classes[int(labels[row])], "index": int(indices[row]), "direction": name}
            pictures.append(facts | _picture(surface, row))
        offsets = surface.offsets.tolist()
        tell(len(flat), len(directions))
    metrics = [
        fraction("flat_images", sum(value > MOSTLY for value in values), len(values), direction=name)
        for name, values in flat.items()
    ]
    details = {"surfaces": {"offsets": offsets, "flat": flat, "pictures": pictures}}
    return measured(metrics, model.coords(config.parameter), details=details)


def _rows(found: TrainedModel, config: SurfaceConfig) -> tuple[Tensor, Tensor]:
    """Positions of the images to show and of those to measure, among the correctly classified ones."""
    data = found.data
    if strange := [name for name in config.classes if name not in data.classes]:
        raise ConfigError(unknown("class", strange[0], data.classes))
    right = correct(found.modes["mean"], data).nonzero().squeeze(1)
    numbers = [data.classes.index(name) for name in config.classes]
    return torch.cat([right[data.labels[right] == number][:1] for number in numbers]), right[: config.measured]


def _picture(found: Surface, row: int) -> dict[str, Any]:
    loss = [[float(f"{value:.4g}") for value in line] for line in found.loss[row].tolist()]
    return {"flat": float(found.flat()[row]), "broken": bool(found.broken[row]), "loss": loss}
