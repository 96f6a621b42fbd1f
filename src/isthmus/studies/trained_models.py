"""Train the image classifiers of a study, attack them, and run checks on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.result import RobustResult
from isthmus.attacks.threats import Threat
from isthmus.audits import AuditOptions, audit
from isthmus.core.files import sha256
from isthmus.core.preserve_state import device_of
from isthmus.core.randomness import example_keys
from isthmus.core.types import CheckResult, Coordinate, Metric
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced
from isthmus.models.bottleneck import Bottleneck
from isthmus.models.modes import StochasticMode
from isthmus.studies.image_models import ImageConfig, ModelSpec
from isthmus.studies.measured import fraction, measured
from isthmus.studies.store import Experiment, ResultStore, Tell
from isthmus.studies.study import data_options
from isthmus.training.run import Run

_BATCH = 1000


@dataclass(frozen=True, eq=False)
class EvaluationImages:
    """Test images that models are evaluated on.

    Attributes:
        indices: positions in the test split.
        classes: their names.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def chance(self) -> float:
        """Accuracy of the best constant prediction."""
        return float(self.labels.bincount().max()) / len(self)

    @cached_property
    def digest(self) -> str:
        """Of the images in their order, for outcomes of each (:func:`isthmus.studies.measured.measured`)."""
        return sha256(self.images.numpy())


def evaluation_images(
    data: str | Mapping[str, Any], train_limit: int | None = None, number: int | None = None
) -> EvaluationImages:
    """Test images of a data set.

    Args:
        train_limit: as in training, since it can determine the test split.
        number: this many, class-balanced; None for all.
    """
    loaded = load(data_options(data, train_limit=train_limit))
    order = balanced(loaded.test.labels) if number else torch.arange(len(loaded.test))
    indices = order[:number]
    test = loaded.test.select(indices)
    return EvaluationImages(as_float(test.images), test.labels, indices, loaded.classes)


def correct(model: nn.Module, data: EvaluationImages) -> Tensor:
    """Whether a model classifies each image correctly, bool, on the CPU; with the keys of seed 0."""
    device, found = device_of(model, data.images), []
    keyed = getattr(model, "takes_keys", False)
    with torch.no_grad():
        for start in range(0, len(data), _BATCH):
            images = data.images[start : start + _BATCH].to(device)
            keys = {"keys": example_keys(0, data.indices[start : start + _BATCH]).to(device)} if keyed else {}
            found.append(model(images, **keys).argmax(1).cpu())
    return torch.cat(found) == data.labels


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained model in its modes, with the images to evaluate it on.

    Attributes:
        modes: "mean", and "stochastic" for a bottleneck that is evaluated in it.
    """

    run: Run
    modes: Mapping[str, nn.Module]
    data: EvaluationImages

    @property
    def collapsed(self) -> bool:
        """Whether it stayed at chance."""
        return bool(self.run.info()["result"]["collapsed"])


def trained(config: ImageConfig, store: ResultStore, model: ModelSpec) -> TrainedModel:
    """Train a model of a study, or load it."""
    run = store.train(config.recipe(model))
    network = run.load().to(default_device())
    modes: dict[str, nn.Module] = {"mean": network}
    if isinstance(network, Bottleneck) and network.stochastic and "stochastic" in config.modes:
        modes["stochastic"] = StochasticMode(network, network.samples).eval()
    return TrainedModel(run, modes, evaluation_images(config.data, config.train_limit, config.images))


def default_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def test_accuracy(run: Run) -> Metric:
    """A row: accuracy on the whole test split, in mean mode."""
    info = run.info()
    n = info["data"]["test"]
    return fraction("test_accuracy", round(info["result"]["test_accuracy"] * n), n)


def training_terms(run: Run, *names: str) -> list[Metric]:
    """Rows: terms of the loss in nats that the run reports of training, such as "epoch_rate"; others are left out."""
    result = run.info()["result"]
    return [Metric(name=name, value=result[name], unit="nats", n=1) for name in names if name in result]


@dataclass(frozen=True, eq=False)
class Attacker:
    """Attacks on one mode of a model; each keeps its state in the store while it runs.

    Attributes:
        about: plain data that determine model and images.
    """

    store: ResultStore
    model: nn.Module
    data: EvaluationImages
    about: Mapping[str, Any]

    def run(
        self, threat: Threat, suite: str | Sequence[Any], rows: Tensor | None = None, target: int | None = None
    ) -> RobustResult:
        """Attack the model, seed 0.

        Args:
            rows: which of the images; None for all.
            target: the class of a targeted attack; none of the images may be of it.
        """
        data = self.data
        chosen = torch.arange(len(data)) if rows is None else rows
        about = {**self.about, "threat": str(threat), "suite": suite, "target": target, "rows": sha256(chosen.numpy())}
        tell = self.store.telling(f"attacking, {self.about.get('mode', 'mean')} mode, {threat}")
        labels = data.labels[chosen]
        with self.store.evaluation(about) as path:
            return robust_accuracy(
                self.model,
                data.images[chosen],
                labels,
                threat,
                suite,
                options=RunOptions(
                    targets=None if target is None else torch.full_like(labels, target),
                    indices=data.indices[chosen],
                    save_to=path,
                    progress=lambda at: tell(at.done, at.total),
                ),
            )


def model_experiment(
    config: ImageConfig,
    store: ResultStore,
    model: ModelSpec,
    what: str,
    about: Mapping[str, Any],
    measure: Callable[[TrainedModel], tuple[Iterable[Metric], Mapping[str, Any]]],
    coords: Mapping[str, Coordinate],
) -> Experiment:
    """An experiment on one trained model, with a row for its test accuracy.

    Args:
        what: the end of the experiment's name.
        about: plain data that determine the measurement, beside the recipe and the number of images.
        measure: from the trained model to rows and details.
        coords: of all rows.
    """

    def measure_model() -> dict[str, Any]:
        found = trained(config, store, model)
        rows, details = measure(found)
        return measured([test_accuracy(found.run), *rows], coords, collapsed=found.collapsed, details=details)

    about = {"recipe": config.recipe(model), "images": config.images, **about}
    return Experiment(f"{model.title}, seed {model.seed}, {what}", about, measure_model)


@dataclass(frozen=True)
class Measurement:
    """A measurement of every model in each of its modes.

    Attributes:
        name: unique in the study.
        settings: plain data that determine it.
        measure: from attacks on one mode to rows, which get the mode as a coordinate unless they have one.
    """

    name: str
    settings: Mapping[str, Any]
    measure: Callable[[Attacker], Iterable[Metric]]


def experiment(
    config: ImageConfig,
    store: ResultStore,
    model: ModelSpec,
    measurement: Measurement,
    terms: Sequence[str] = (),
    parameter: str = "rho",
) -> Experiment:
    """A measurement of one model in each of its modes.

    Args:
        terms: of its training, see :func:`training_terms`.
        parameter: coordinate of the trade-off parameter.
    """
    about = {"modes": config.modes, "measured": measurement.name, **measurement.settings}

    def measure(found: TrainedModel) -> tuple[list[Metric], dict[str, Any]]:
        rows, whole = training_terms(found.run, *terms), {"recipe": config.recipe(model), "images": config.images}
        for mode, network in found.modes.items():
            attacker = Attacker(store, network, found.data, {**whole, **about, "mode": mode})
            rows += [row.named(row.name, **{"mode": mode, **row.coords}) for row in measurement.measure(attacker)]
        return rows, {}

    return model_experiment(config, store, model, measurement.name, about, measure, model.coords(parameter))


def run_check(model: nn.Module, data: EvaluationImages, check: dict[str, Any], tell: Tell) -> CheckResult:
    """Run one check on a model, on the GPU if there is one.

    Args:
        check: its name, with options; none that uses the audit's threat.
        tell: reports progress.
    """
    found = audit(
        model.to(default_device()),
        data.images,
        data.labels,
        "l2:1",  # an audit needs one
        [check],
        options=AuditOptions(indices=data.indices, debug=True, progress=lambda _, done, total: tell(done, total)),
    )
    return found.results[check["name"]]
