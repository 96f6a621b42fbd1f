"""Experiments of the CEB studies on CIFAR-10, in two stages.

First every model is trained and attacked. Then those that did not collapse are tested on published shifted sets, and
adversarial images of some models are tried on the best one at the smallest ρ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.threats import parse
from isthmus.attacks.transfer import transferred
from isthmus.checks.shift import correct_predictions, correct_under_corruptions
from isthmus.core.config import component, instance
from isthmus.core.errors import DataError
from isthmus.core.files import sha256
from isthmus.core.preserve_state import device_of
from isthmus.core.types import Coordinate, Metric
from isthmus.data.shift.shifted import ShiftedTestSet, load
from isthmus.metrics import CORRUPTIONS, errors_by_severity, measured_mce
from isthmus.studies.ceb.cifar_configs import CifarConfig, Given, shift_name, shift_options
from isthmus.studies.ceb.common import best_run
from isthmus.studies.ceb.experiments import attacked_models
from isthmus.studies.ceb.transfer_attack import surrogate
from isthmus.studies.image_models import ModelSpec
from isthmus.studies.measured import Measured, fraction, measured
from isthmus.studies.store import Experiment, ResultStore, Stages
from isthmus.studies.trained_models import Attacker, TrainedModel, trained
from isthmus.training.run import Run
from isthmus.training.run import load as load_run

CORRUPTED = "cifar10_c"


class Finished(NamedTuple):
    """A model of the first stage.

    Attributes:
        robust: its robust accuracies under PGD.
    """

    model: ModelSpec
    accuracy: float
    collapsed: bool
    robust: tuple[Metric, ...]

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Finished:
        """From what its experiment returned."""
        found = Measured.from_plain(value)
        coords: Mapping[str, Any] = found.metrics[0].coords
        (accuracy,) = (row.value for row in found.metrics if row.name == "test_accuracy")
        robust = tuple(
            row
            for row in found.metrics
            if row.name == "robust_accuracy" and (row.coords["attack"], row.coords["mode"]) == ("pgd", "mean")
        )
        model = ModelSpec(coords["objective"], coords.get("rho"), coords["seed"])
        return cls(model, float(accuracy or 0.0), found.collapsed, robust)


class Pair(NamedTuple):
    """Adversarial images of ``source``, tried on ``target``.

    Attributes:
        name: the coordinate ``source``: "largest rho", "deterministic", "another run" or "madry".
        source: None for the network of ``config.madry``.
    """

    name: str
    source: ModelSpec | None
    target: Finished


def cifar(config: CifarConfig, store: ResultStore) -> Stages:
    """Figures 2 and 3: every model, trained and attacked; then those that trained, under shift and transfers.

    Raises:
        FileError: ``madry`` names no run folder, or one that is not finished.
    """
    if config.madry is not None:
        load_run(Path(config.madry).expanduser())
    runs = [Finished.of(each) for each in (yield attacked_models(config, store))]
    healthy = [run for run in runs if not run.collapsed]
    yield [
        _which_trained(config, runs),
        *shift_experiments(config, store, [run.model for run in healthy]),
        *(_transfer(config, store, pair) for pair in pairs(healthy, config.families[0], config.madry is not None)),
    ]


def _which_trained(config: CifarConfig, runs: Sequence[Finished]) -> Experiment:
    """A row for each model: 1 if it left chance. Those of collapsed models are left out everywhere else."""
    rows = [
        Metric(name="trained", value=float(not run.collapsed), unit="fraction", n=1, coords=run.model.coords())
        for run in runs
    ]
    collapsed = [run.collapsed for run in runs]
    about = {"trained": [config.recipe(run.model) for run in runs], "collapsed": collapsed}
    return Experiment("which models trained", about, lambda: measured(rows, {}))


def pairs(healthy: Sequence[Finished], family: str, madry: bool) -> list[Pair]:
    """Whose attacks are tried on the best run at the smallest ρ that trained.

    Those of the best run at the largest ρ, of the deterministic network, of another run at the smallest ρ, and of an
    adversarially trained network, as far as they are there.

    Args:
        family: of the bottlenecks.
        madry: whether there is an adversarially trained network.
    """
    runs = {run.model: run for run in healthy}
    accuracies = {model: run.accuracy for model, run in runs.items()}
    rhos = [model.parameter for model in runs if model.objective == family and model.parameter is not None]
    target = best_run(accuracies, family, min(rhos, default=None))
    if target is None or target.parameter is None:
        return []
    rest = {model: accuracy for model, accuracy in accuracies.items() if model != target}
    sources = {
        "largest rho": best_run(rest, family, max(rhos)) if max(rhos) > target.parameter else None,
        "deterministic": best_run(rest, "determ", None),
        "another run": best_run(rest, family, target.parameter),
    }
    found = [Pair(name, source, runs[target]) for name, source in sources.items() if source is not None]
    return [*found, Pair("madry", None, runs[target])] if madry else found


def _transfer(config: CifarConfig, store: ResultStore, pair: Pair) -> Experiment:
    about = {
        "transfer": pair.name,
        "source": _identity(config, pair.source),
        "target": config.recipe(pair.target.model),
        "images": config.images,
        "suite": config.pgd(),
        "eps": {"linf": config.linf, "l2": config.l2},
    }

    def measure() -> dict[str, Any]:
        target = trained(config, store, pair.target.model)
        source = _source(config, store, pair.source, target)
        rows = [row.named("direct_accuracy") for row in pair.target.robust]
        for norm in ("linf", "l2"):
            grid = about["eps"][norm]
            counts = transfer_counts(Attacker(store, source, target.data, about), target, norm)
            n = len(target.data)
            rows += [
                fraction("transfer_accuracy", count, n, norm=norm, eps=eps)
                for eps, count in zip(grid, counts, strict=True)
            ]
        coords: dict[str, Coordinate] = {"source": pair.name}
        return measured(rows, {**pair.target.model.coords(), **coords})

    return Experiment(f"transfer from {pair.name}", about, measure)


def _identity(config: CifarConfig, model: ModelSpec | None) -> Any:
    if model is not None:
        return config.recipe(model)
    assert config.madry is not None
    run = Run(Path(config.madry).expanduser())
    return {"run": str(run.path), "weights": (run.info().get("result") or {}).get("weights_sha256")}


def _source(config: CifarConfig, store: ResultStore, model: ModelSpec | None, target: TrainedModel) -> nn.Module:
    if model is not None:
        return trained(config, store, model).modes["mean"]
    assert config.madry is not None
    network = load_run(Path(config.madry).expanduser())
    return network.to(device_of(target.modes["mean"], target.data.images))


def transfer_counts(source: Attacker, target: TrainedModel, norm: str) -> list[int]:
    """Images that the target still classifies correctly at each ε, after two kinds of the source's images.

    These are the adversarial examples on the source, which lie just across its boundary, since the engine stops there;
    and where PGD on it ends after all its steps, as the papers transfer. An image broken at one ε counts at the larger
    ones.
    """
    data, about = target.data, source.about
    left, counts = torch.arange(len(data)), []
    attacker = Attacker(source.store, source.model, data, {**about, "mode": "mean", "role": "source"})
    other = surrogate(source.model, about["suite"][0]["steps"], sha256(repr(about["source"]).encode())[:16])
    for eps in about["eps"][norm]:
        if len(left):
            threat = parse(f"{norm}:{eps}")
            found = transferred(attacker.run(threat, about["suite"], left))
            result = robust_accuracy(
                target.modes["mean"],
                data.images[left],
                data.labels[left],
                threat,
                [found, other],
                options=RunOptions(indices=data.indices[left]),
            )
            left = left[result.robust]
        counts.append(len(left))
    return counts


def shift_experiments(config: CifarConfig, store: ResultStore, models: Iterable[ModelSpec]) -> Iterator[Experiment]:
    """For each shifted set an experiment for each model; if the set's files are absent, one with the reason.

    Whether they are there is part of what determines an experiment: it is measured once they are.
    """
    for given in config.shifts:
        options, name = shift_options(given), shift_name(given)
        reason = absent(given, config.data)
        if reason:
            row = Metric(name="shift_accuracy", value=None, unit="fraction", n=0, note=reason)
            about = {"shift": options, "absent": reason}
            yield Experiment(f"{name}, not measured", about, partial(measured, [row], {"data": name}))
            continue
        for model in models:
            about = {"shift": options, "recipe": config.recipe(model)}
            label = f"{name}, {model.title}, seed {model.seed}"
            yield Experiment(label, about, partial(_shifted, config, store, model, given))


def absent(given: Given, data: str) -> str:
    """Why a set cannot be measured, in one sentence; "" if it can.

    Files that are there but damaged are a fault that loading names.
    """
    if data != "cifar10":
        return f"It is for classifiers of cifar10; these are of {data}."
    options = shift_options(given)
    corrupted = options["name"] == CORRUPTED
    config = component("shifts", {**options, "corruption": "fog", "severity": 1} if corrupted else options)
    try:
        folder = instance("shifts", config, ShiftedTestSet).folder()
    except DataError as error:
        return str(error)
    version = getattr(config, "version", "")
    names = (*CORRUPTIONS, "labels") if corrupted else [f"cifar10.1_{version}_{part}" for part in ("data", "labels")]
    lacking = [f"{name}.npy" for name in names if not (folder / f"{name}.npy").exists()]
    return f"{folder} lacks {', '.join(lacking)}." if lacking else ""


def _shifted(config: CifarConfig, store: ResultStore, model: ModelSpec, given: Given) -> dict[str, Any]:
    found = trained(config, store, model)
    rows = shift_rows(found.modes["mean"], given, found.data.classes, store)
    return measured(rows, {**model.coords(), "data": shift_name(given)})


def shift_rows(network: nn.Module, given: Given, classes: Sequence[str], store: ResultStore) -> Iterator[Metric]:
    """Accuracy on CIFAR-10.1; on CIFAR-10-C each error, and their mean over corruptions and severities."""
    if shift_options(given)["name"] != CORRUPTED:
        right = correct_predictions(network, load(given, classes))
        yield fraction("shift_accuracy", int(right.sum()), len(right))
        return
    outcomes = correct_under_corruptions(network, given, classes, progress=store.telling(shift_name(given)))
    mean = measured_mce(outcomes, seed=0, baseline=None)
    yield mean.named("corruption_error")
    for corruption, errors in errors_by_severity(outcomes).items():
        for severity, error in enumerate(errors, 1):
            coords: dict[str, Coordinate] = {"corruption": corruption, "severity": severity}
            yield Metric(name="error", value=error, unit="fraction", n=mean.n, coords=coords)
