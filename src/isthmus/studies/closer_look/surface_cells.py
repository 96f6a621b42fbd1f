"""Choosing a model, and computing loss surfaces around its test images: what the studies of surfaces keep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from isthmus.attacks.loss_surface import Surface, loss_surface, random_signs, worst_signs
from isthmus.attacks.threats import Linf
from isthmus.core.errors import ConfigError, unknown
from isthmus.core.preserve_state import device_of
from isthmus.core.randomness import example_keys
from isthmus.studies.closer_look.attacked import ensemble
from isthmus.studies.closer_look.surfaces import SurfaceConfig
from isthmus.studies.old.laboratory import Laboratory, Subject
from isthmus.studies.store import Experiment, ResultStore, Stages, Tell

_DECIDING = {"eps", "pgd", "classes", "measured", "direction_starts", "grid", "images"}  # beside the recipe


def cells(config: SurfaceConfig, bench: ResultStore) -> Stages:
    """The models, trained and ranked; then the surfaces of the best."""
    laboratory, trial, knob = Laboratory(config, bench), ensemble(config.eps, config.ensemble), config.knobs[0]
    ranked = yield [laboratory.cell(config.kind, knob, seed, trial) for seed in range(config.seeds)]
    usable = [cell for cell in ranked if not cell["collapsed"] and cell["modes"]["mean"]["clean"]]
    if not usable:
        return
    best = max(usable, key=lambda cell: cell["modes"]["mean"]["left"])
    recipe = config.recipe(config.kind, knob, best["seed"])
    name = f"{config.kind} {knob:g}, seed {best['seed']}, surfaces"

    def make() -> dict[str, Any]:
        subject = laboratory.subject(config.kind, knob, best["seed"])
        return measure(subject, config, bench.telling("surfaces"))

    yield [Experiment(name, {"recipe": recipe, **config.model_dump(mode="json", include=_DECIDING)}, make)]


def measure(subject: Subject, config: SurfaceConfig, tell: Tell) -> dict[str, Any]:
    """Loss surfaces of a model in mean mode around test images that it gets right.

    Returns:
        Offsets u (and v) of the grid; for the first image of each class asked for, the cross-entropy on its grid, nats,
        towards PGD's worst perturbation and towards a random one; and for every image how flat both are.

    Raises:
        ConfigError: a class that the data do not have.
    """
    shown, measured = _rows(subject, config)
    rows = torch.cat([shown, measured])
    images, labels, indices = subject.images[rows], subject.labels[rows], subject.indices[rows]
    model, keys = subject.modes["mean"], example_keys(0, indices)
    directions = {
        "worst": worst_signs(
            model, images, labels, Linf(config.eps), keys, restarts=config.direction_starts, **config.pgd.model_dump()
        ),
        "random": random_signs(keys, images.shape[1:]),
    }
    across = random_signs(keys, images.shape[1:], second=True)
    pictures: list[dict[str, Any]] = []
    flat: dict[str, list[float]] = {}
    offsets: list[float] = []
    for name, first in directions.items():
        found = loss_surface(model, images, labels, first, across, config.eps, steps=config.grid)
        flat[name] = found.flat()[len(shown) :].tolist()
        for row in range(len(shown)):
            facts = {"class": subject.classes[int(labels[row])], "index": int(indices[row]), "direction": name}
            pictures.append(facts | _picture(found, row))
        offsets = found.offsets.tolist()
        tell(len(flat), len(directions))
    return {**subject.facts, "attack": "surfaces", "offsets": offsets, "flat": flat, "pictures": pictures}


def _rows(subject: Subject, config: SurfaceConfig) -> tuple[Tensor, Tensor]:
    """Positions of the images to show and of those to measure, among the ones that the model gets right."""
    if strange := [name for name in config.classes if name not in subject.classes]:
        raise ConfigError(unknown("class", strange[0], subject.classes))
    model = subject.modes["mean"]
    with torch.no_grad():
        logits = [model(part.to(device_of(model, part))).cpu() for part in torch.split(subject.images, 500)]
    right = (torch.cat(logits).argmax(1) == subject.labels).nonzero().squeeze(1)
    numbers = [subject.classes.index(name) for name in config.classes]
    return torch.cat([right[subject.labels[right] == number][:1] for number in numbers]), right[: config.measured]


def _picture(found: Surface, row: int) -> dict[str, Any]:
    loss = [[float(f"{value:.4g}") for value in line] for line in found.loss[row].tolist()]
    return {"flat": float(found.flat()[row]), "broken": bool(found.broken[row]), "loss": loss}
