"""Training the models of Guess First, and what every cell says about them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.studies.guess_first.protocol import THROUGH, ModelsConfig
from isthmus.studies.old.laboratory import Judged, Subject, facts_of, judged
from isthmus.studies.store import ResultStore

BATCH = 500


class Workshop:
    """Trains the models of one config; loads its images once."""

    def __init__(self, config: ModelsConfig, bench: ResultStore) -> None:
        self.config, self.bench = config, bench

    def subject(self, name: str, seed: int) -> Subject:
        """Train a model (or take the one that is there), in mean mode, with the images to judge it on."""
        run = self.bench.train(self.config.recipe(name, seed))
        images, labels, indices, classes = self._judged
        facts = {"model": name, "seed": seed, **facts_of(run, labels)}
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model: nn.Module = run.load().to(device)
        if name.endswith(THROUGH):
            model = nn.Sequential(model, nn.Sigmoid()).eval()
        return Subject({"mean": model}, images, labels, indices, classes, facts)

    @cached_property
    def _judged(self) -> Judged:
        return judged(self.config.data, self.config.train_limit, self.config.images)


def model_of(subject: Subject) -> nn.Module:
    """The model in mean mode, which is what all of these studies judge."""
    return subject.modes["mean"]


def right(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Which images the model takes for their labels, bool, on the CPU."""
    device = device_of(model, images)
    with preserve_state(model, device, seed=0), torch.no_grad():
        found = [model(part.to(device)).argmax(1).cpu() for part in torch.split(images, BATCH)]
    return torch.cat(found) == labels


def about(recipe: Any, config: ModelsConfig, **settings: Any) -> dict[str, Any]:
    """Plain data that determine a measurement.

    Args:
        recipe: of the model, or of several by name.
        settings: of the attack.
    """
    return {"recipe": recipe, "images": config.images, **settings}
