"""Experiments of the CEB studies on ImageNet, in two stages: every model, then the choice of ρ.

The 50,000 validation images are decoded and attacked in portions. The store keeps every portion and every corruption,
so that a killed evaluation of a day loses minutes.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import nn

from isthmus.attacks.threats import parse
from isthmus.checks import shift
from isthmus.core.errors import ConfigError, DataError
from isthmus.core.files import sha256
from isthmus.core.types import Metric
from isthmus.data.images import ImageData, as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced
from isthmus.data.shift.imagenet_a import ImageNetA
from isthmus.data.shift.imagenet_c import ImageNetC
from isthmus.data.shift.shifted import load as load_shifted
from isthmus.metrics import measured_mce
from isthmus.metrics.corruption import ALEXNET, CORRUPTIONS, SEVERITIES
from isthmus.studies.ceb import textures
from isthmus.studies.ceb.imagenet_configs import ImageNetConfig, Norm
from isthmus.studies.image_models import ModelSpec
from isthmus.studies.measured import Measured, fraction, measured
from isthmus.studies.store import Experiment, ResultStore, Stages
from isthmus.studies.trained_models import Attacker, EvaluationImages, default_device, test_accuracy

PORTION = 1000
"""Images that are decoded and attacked together: 0.6 GB at 224×224."""
CORRUPTED, ADVERSARIAL = "imagenet_c", "imagenet_a"
CHOSEN = "chosen"
"""The coordinate ``objective`` of CEB at the chosen ρ."""


@dataclass(frozen=True)
class Places:
    """Folders and options of the three sets.

    Attributes:
        path: the folder with train and val.
        corrupted, adversarial: options of the test sets ``imagenet_c`` (without corruption and severity) and
            ``imagenet_a``.
        missing: why "imagenet_a" or a corruption (at any severity) is absent, one sentence each.
    """

    path: str
    corrupted: Mapping[str, Any]
    adversarial: Mapping[str, Any]
    missing: Mapping[str, str] = field(default_factory=dict)


def find(config: ImageNetConfig, store: ResultStore) -> Places:
    """Find the folders of the images; make textures if the config uses them.

    Raises:
        ConfigError: no folder is named.
    """
    path, imagenet_c, imagenet_a = config.path, config.imagenet_c, config.imagenet_a
    if config.data == "textures":
        made = textures.make(store.root / "data", config.size)
        path, imagenet_c, imagenet_a = str(made), str(made / "imagenet-c"), str(made / "imagenet-a")
    if path is None:
        raise ConfigError(
            "Set path=FOLDER, the ImageNet folder with train/<class>/ and val/<class>/; --scale tiny generates a few "
            "images instead."
        )
    corrupted = {"name": CORRUPTED, "path": imagenet_c, "size": config.corrupted_size}
    shorter = round(config.size * 256 / 224)
    adversarial = {"name": ADVERSARIAL, "path": imagenet_a, "size": config.size, "shorter": shorter}
    limit = {"limit": config.corrupted}
    return Places(path, {**corrupted, **limit}, {**adversarial, **limit}, _missing(corrupted, adversarial))


def _missing(corrupted: dict[str, Any], adversarial: dict[str, Any]) -> dict[str, str]:
    found = {}
    for corruption in CORRUPTIONS:
        try:
            for severity in SEVERITIES:
                ImageNetC(**corrupted, corruption=corruption, severity=severity).folder()
        except DataError as error:
            found[corruption] = str(error)
    try:
        ImageNetA(**adversarial).folder()
    except DataError as error:
        found[ADVERSARIAL] = str(error)
    return found


def imagenet(config: ImageNetConfig, store: ResultStore) -> Stages:
    """Tables 1 and 2: every model, trained and tested; then CEB at the chosen ρ of each way of training.

    Raises:
        ConfigError: no folder is named.
    """
    places = find(config, store)
    values = yield [_experiment(config, store, places, model) for model in config.models()]
    digest = sha256(json.dumps(list(values), sort_keys=True).encode())
    models = [Measured.from_plain(each) for each in values]
    about = {"choice of": digest, "tie": config.tie}
    yield [Experiment("choice of ρ", about, lambda: measured(chosen_rows(models, config.tie), {}))]


def chosen_rows(models: Iterable[Measured], tie: float) -> list[Metric]:
    """Rows of CEB at the chosen ρ of each way of training, and that ρ itself."""
    ceb: dict[str, list[Measured]] = {}
    for each in models:
        coords = each.metrics[0].coords
        if coords["objective"] == "ceb" and not each.collapsed:
            ceb.setdefault(str(coords["variant"]), []).append(each)
    rows = []
    for variant, found in ceb.items():
        errors: dict[float, list[float]] = {}
        for row in (row for each in found for row in each.metrics if row.name == "clean_error"):
            errors.setdefault(float(row.coords["rho"]), []).append(float(row.value or 0.0))
        rho = chosen_rho({rho: fmean(values) for rho, values in errors.items()}, tie)
        rows.append(Metric(name="chosen_rho", value=rho, unit="", n=1, coords={"variant": variant}))
        rows += [
            row.model_copy(update={"coords": {**without_rho(row), "objective": CHOSEN}})
            for each in found
            for row in each.metrics
            if row.coords["rho"] == rho and row.value is not None
        ]
    return rows


def without_rho(row: Metric) -> dict[str, Any]:
    """Coordinates of a row but for ρ."""
    return {key: value for key, value in row.coords.items() if key != "rho"}


def chosen_rho(errors: Mapping[float, float], tie: float) -> float:
    """The paper's ρ: the best clean accuracy, on the test set; of those within ``tie`` of it, the lowest."""
    limit = min(errors.values()) + tie + 1e-9  # against rounding
    return min(rho for rho, error in errors.items() if error <= limit)


def _experiment(config: ImageNetConfig, store: ResultStore, places: Places, model: ModelSpec) -> Experiment:
    recipe = config.recipe(model, places.path)
    norms: tuple[Norm, ...] = ("linf", "l2")
    about = {
        "recipe": recipe,
        "images": config.images,
        "attacks": {norm: [config.ball(norm).plain(), config.attack(norm)] for norm in norms},
        "shifted": [dict(places.corrupted), dict(places.adversarial)],
        "missing": sorted(places.missing),  # a folder that is added later makes another experiment
    }

    def measure() -> dict[str, Any]:
        run = store.train(recipe)
        tested = test_accuracy(run)
        network = run.load().to(default_device())
        evaluated = Evaluated(config, store, places, {"recipe": recipe}, network, load(run.recipe.data))
        wrong = tested.n - round(float(tested.value or 0.0) * tested.n)
        rows = [fraction("clean_error", wrong, tested.n), *evaluated.rows()]
        return measured(rows, model.coords(), collapsed=run.info()["result"]["collapsed"])

    return Experiment(f"{model.variant}, {model.title}, seed {model.seed}", about, measure)


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A trained model with its test images."""

    config: ImageNetConfig
    store: ResultStore
    places: Places
    about: Mapping[str, Any]
    model: nn.Module
    data: ImageData

    def rows(self) -> list[Metric]:
        """Every number of the paper's tables but the clean error."""
        return [*self.under_corruptions(), self.on_imagenet_a(), self.under_pgd("l2"), self.under_pgd("linf")]

    def under_pgd(self, norm: Norm) -> Metric:
        """Error on the perturbed images.

        A run stops as soon as an image is assigned to any wrong class, not the target class alone. The paper evaluates
        the image after the last step, so that its error can only be lower.
        """
        labels = self.data.test.labels
        order = balanced(labels)[: self.config.images] if self.config.images else torch.arange(len(labels))
        robust = 0
        for start in range(0, len(order), PORTION):
            robust += self._attacked(norm, order[start : start + PORTION], start)["robust"]
        eps = self.config.ball(norm).eps
        return fraction("pgd_error", len(order) - robust, len(order), norm=norm, eps=eps)

    def _attacked(self, norm: Norm, rows: torch.Tensor, start: int) -> dict[str, Any]:
        threat, suite = parse(f"{norm}:{self.config.ball(norm).eps}"), self.config.attack(norm)
        about = {**self.about, "threat": str(threat), "suite": suite, "images": self.config.images, "from": start}

        def make() -> dict[str, Any]:
            part = self.data.test.select(rows)
            images = EvaluationImages(as_float(part.images), part.labels, rows, self.data.classes)
            result = Attacker(self.store, self.model, images, {**about, "mode": "mean"}).run(threat, suite)
            return {"robust": int(result.robust.sum()), "n": len(rows)}

        return self._part(f"pgd {norm} from {start}", about, make)

    def on_imagenet_a(self) -> Metric:
        """Error among the 200 classes of ImageNet-A."""
        if ADVERSARIAL in self.places.missing:
            return _unmeasured("imagenet_a_error", self.places.missing[ADVERSARIAL])
        options = self.places.adversarial

        def make() -> dict[str, Any]:
            self.store.report("testing on ImageNet-A", 0, 0)
            right = shift.correct_predictions(self.model, load_shifted(options, self.data.classes))
            return {"wrong": int((~right).sum()), "n": len(right)}

        found = self._part("imagenet-a", {**self.about, "set": options}, make)
        return fraction("imagenet_a_error", found["wrong"], found["n"])

    def under_corruptions(self) -> list[Metric]:
        """Mean error over severities of each corruption, their mean, and the mCE relative to AlexNet's."""
        missing = self.places.missing
        there = [name for name in CORRUPTIONS if name not in missing]
        outcomes = self._outcomes(there)
        rows = [measured_mce(outcomes, 0, None, [name]).named("corruption_error", corruption=name) for name in there]
        rows += [
            _unmeasured("corruption_error", missing[name], corruption=name) for name in CORRUPTIONS if name in missing
        ]
        if len(there) < len(CORRUPTIONS):
            reason = f"{len(there)} of {len(CORRUPTIONS)} corruptions were found."
            return [*rows, *(_unmeasured(name, reason) for name in ("mce", "average_error"))]
        mce = measured_mce(outcomes, 0, ALEXNET).model_copy(update={"unit": "relative"})
        return [*rows, mce.named("mce"), measured_mce(outcomes, 0, None).named("average_error")]

    def _outcomes(self, corruptions: Sequence[str]) -> dict[str, np.ndarray]:
        found = {name: self._corrupted(name) for name in corruptions}
        if len({part["examples"] for part in found.values()}) > 1:
            raise DataError("The corruptions of ImageNet-C do not have the same images; complete the copy.")
        # the means need only an image's number of errors over the severities
        wrong = {name: np.array(list(part["wrong"]), dtype=int) for name, part in found.items()}
        return {name: counts <= np.arange(5)[:, None] for name, counts in wrong.items()}

    def _corrupted(self, corruption: str) -> dict[str, Any]:
        options = dict(self.places.corrupted)

        def make() -> dict[str, Any]:
            tell = self.store.telling(f"testing under {corruption}")
            first = load_shifted({**options, "corruption": corruption, "severity": 1}, self.data.classes)
            right = shift.correct_under_corruptions(
                self.model, options, self.data.classes, [corruption], progress=tell
            )[corruption]
            wrong = "".join(map(str, (~right).sum(0)))  # number of severities at which each image is wrong, 0 to 5
            return {"examples": first.examples, "errors": (~right).mean(1).tolist(), "wrong": wrong}

        return self._part(corruption, {**self.about, "set": options, "corruption": corruption}, make)

    def _part(self, name: str, about: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        with _without_warnings():
            return self.store.part(Experiment(f"{self.about['recipe']['name']} {name}", about, make))


def _unmeasured(name: str, reason: str, **coords: str) -> Metric:
    return Metric(name=name, value=None, unit="fraction", n=0, note=reason, coords=dict(coords))


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Suppress 75 warnings about an incomplete set for each model; every number has its n."""
    loading = logging.getLogger("isthmus.data.shift.shifted")
    before = loading.level
    loading.setLevel(logging.ERROR)
    try:
        yield
    finally:
        loading.setLevel(before)
