"""Training and testing one model on ImageNet: what its cell holds.

Of 50,000 validation images a portion at a time is decoded and attacked, and every portion and every corruption is kept
by itself: a day's evaluation that is killed loses minutes.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from isthmus.attacks.threats import parse
from isthmus.checks import shift
from isthmus.core.errors import DataError
from isthmus.core.types import Metric
from isthmus.data.images import ImageData, as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced
from isthmus.data.shift.shifted import load as load_shifted
from isthmus.metrics import measured_mce, wilson
from isthmus.metrics.corruption import ALEXNET, CORRUPTIONS
from isthmus.studies.ceb import imagenet_places
from isthmus.studies.ceb.imagenet import ImageNetConfig, Variant
from isthmus.studies.ceb.imagenet_places import ADVERSARIAL, Places
from isthmus.studies.old.image_models import title
from isthmus.studies.old.laboratory import Attacker, Subject
from isthmus.studies.store import Experiment, ResultStore

PORTION = 1000
"""Images that are decoded and attacked at once: 0.6 GB at 224×224."""
Number = dict[str, Any]
"""``{"value", "low", "high", "n"}`` of an error and the interval over its images, or ``{"why"}`` it is not measured."""


def cells(config: ImageNetConfig, bench: ResultStore) -> list[Experiment]:
    """A cell for every model.

    Raises:
        ConfigError: no folder is named.
    """
    places = imagenet_places.find(config, bench)
    return [_cell(config, bench, places, *model) for model in config.models()]


def _cell(
    config: ImageNetConfig, bench: ResultStore, places: Places, variant: Variant, rho: float | None, seed: int
) -> Experiment:
    kind: Literal["determ", "ceb"] = "determ" if rho is None else "ceb"
    recipe = config.recipe(variant, rho, seed, places.path)
    about = {
        "recipe": recipe,
        "images": config.images,
        "attacks": {norm: [getattr(config, norm).plain(), config.attack(norm)] for norm in ("linf", "l2")},
        "shifted": [dict(places.corrupted), dict(places.adversarial)],
        "missing": sorted(places.missing),  # a folder that is there the next time makes another cell
    }

    def make() -> dict[str, Any]:
        facts = {"variant": variant, "objective": kind, "knob": rho, "seed": seed}
        examined = _examined(config, bench, places, recipe)
        return {**facts, **examined.facts, "errors": examined.errors(), "missing": dict(places.missing)}

    return Experiment(f"{variant}, {title(kind, rho)}, seed {seed}", about, make)


def _examined(config: ImageNetConfig, bench: ResultStore, places: Places, recipe: Mapping[str, Any]) -> Examined:
    """Train a model, or take the one that is there."""
    run = bench.train(recipe)
    result = run.info()["result"]
    facts = {
        "test_accuracy": result["test_accuracy"],
        "tested": run.info()["data"]["test"],
        "collapsed": result["collapsed"],
        "parameters": result["parameters"],
        "trained": {name: value for name, value in result.items() if isinstance(value, float)},
    }
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Examined(config, bench, places, {"recipe": recipe}, run.load().to(device), load(run.recipe.data), facts)


@dataclass(frozen=True, eq=False)
class Examined:
    """A trained model, and all that it is tested on."""

    config: ImageNetConfig
    bench: ResultStore
    places: Places
    about: Mapping[str, Any]
    model: nn.Module
    data: ImageData
    facts: dict[str, Any]

    def errors(self) -> dict[str, Number]:
        """Every number of the paper's tables: by the names of :class:`isthmus.studies.ceb.printed.ImageNetModel`."""
        tested = self.facts["tested"]
        return {
            "clean": share(tested - round(self.facts["test_accuracy"] * tested), tested),
            **self.under_corruptions(),
            "imagenet_a": self.on_imagenet_a(),
            "pgd_l2": self.under_pgd("l2"),
            "pgd_linf": self.under_pgd("linf"),
        }

    def under_pgd(self, norm: Literal["linf", "l2"]) -> Number:
        """Error on the perturbed images.

        A run stops where an image is taken for any wrong class, the one it is directed at or another. The paper judges
        the image after the last step, so that its error can only be lower.
        """
        labels = self.data.test.labels
        order = balanced(labels)[: self.config.images] if self.config.images else torch.arange(len(labels))
        standing = 0
        for start in range(0, len(order), PORTION):
            standing += self._attacked(norm, order[start : start + PORTION], start)["standing"]
        return share(len(order) - standing, len(order))

    def _attacked(self, norm: Literal["linf", "l2"], rows: torch.Tensor, start: int) -> dict[str, Any]:
        threat, suite = parse(f"{norm}:{getattr(self.config, norm).eps}"), self.config.attack(norm)
        about = {**self.about, "threat": str(threat), "suite": suite, "images": self.config.images, "from": start}

        def make() -> dict[str, Any]:
            part = self.data.test.select(rows)
            subject = Subject({"mean": self.model}, as_float(part.images), part.labels, rows, self.data.classes, {})
            result = Attacker(self.bench, subject, {**about, "mode": "mean"}).run(threat, suite)
            return {"standing": int(result.robust.sum()), "right": int(result.correct.sum()), "n": len(rows)}

        return self._part(f"pgd {norm} from {start}", about, make)

    def on_imagenet_a(self) -> Number:
        """Error among the 200 classes that its authors let a classifier choose from."""
        if ADVERSARIAL in self.places.missing:
            return {"why": "ImageNet-A is not there"}
        options = self.places.adversarial

        def make() -> dict[str, Any]:
            self.bench.report("testing on ImageNet-A", 0, 0)
            right = shift.correct_predictions(self.model, load_shifted(options, self.data.classes))
            return {"wrong": int((~right).sum()), "n": len(right)}

        found = self._part("imagenet-a", {**self.about, "set": options}, make)
        return share(found["wrong"], found["n"])

    def under_corruptions(self) -> dict[str, Number]:
        """Mean error over severities of each corruption, their mean, and the mCE relative to AlexNet's."""
        there = [name for name in CORRUPTIONS if name not in self.places.missing]
        outcomes = self._outcomes(there)
        errors = {name: number(measured_mce(outcomes, 0, None, [name])) for name in there}
        errors |= {name: {"why": f"{name} is not there"} for name in CORRUPTIONS if name not in there}
        for name, baseline in (("mce", ALEXNET), ("average", None)):
            if len(there) == len(CORRUPTIONS):
                errors[name] = number(measured_mce(outcomes, 0, baseline))
            else:
                errors[name] = {"why": f"{len(there)} of {len(CORRUPTIONS)} corruptions are there"}
        return errors

    def _outcomes(self, corruptions: list[str]) -> dict[str, np.ndarray]:
        found = {name: self._corrupted(name) for name in corruptions}
        if len({part["examples"] for part in found.values()}) > 1:
            raise DataError("The corruptions of ImageNet-C are not all of the same images; complete the copy.")
        # an image's number of errors over the severities is all that the means need
        wrong = {name: np.array(list(part["wrong"]), dtype=int) for name, part in found.items()}
        return {name: counts <= np.arange(5)[:, None] for name, counts in wrong.items()}

    def _corrupted(self, corruption: str) -> dict[str, Any]:
        options = dict(self.places.corrupted)

        def make() -> dict[str, Any]:
            tell = self.bench.telling(f"testing under {corruption}")
            first = load_shifted({**options, "corruption": corruption, "severity": 1}, self.data.classes)
            right = shift.correct_under_corruptions(
                self.model, options, self.data.classes, [corruption], progress=tell
            )[corruption]
            wrong = "".join(map(str, (~right).sum(0)))  # of each image at how many severities, 0 to 5
            return {"examples": first.examples, "errors": (~right).mean(1).tolist(), "wrong": wrong}

        return self._part(corruption, {**self.about, "set": options, "corruption": corruption}, make)

    def _part(self, name: str, about: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        with _without_warnings():
            return self.bench.part(Experiment(f"{self.about['recipe']['name']} {name}", about, make))


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """A set that is not complete would say so 75 times for every model; every number has its n."""
    loading = logging.getLogger("isthmus.data.shift.shifted")
    before = loading.level
    loading.setLevel(logging.ERROR)
    try:
        yield
    finally:
        loading.setLevel(before)


def share(wrong: int, n: int) -> Number:
    """An error with its Wilson interval."""
    interval = wilson(wrong, n)
    return {"value": wrong / n, "low": interval.low, "high": interval.high, "n": n}


def number(metric: Metric) -> Number:
    """A measured mean with its interval."""
    interval = metric.interval
    value = metric.value if metric.value is not None else float("nan")
    low, high = (interval.low, interval.high) if interval is not None else (value, value)
    return {"value": value, "low": low, "high": high, "n": metric.n}
