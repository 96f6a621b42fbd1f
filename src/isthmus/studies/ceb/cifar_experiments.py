"""Experiments of the CEB studies on CIFAR-10, in two stages.

First every model is trained and attacked. Then those that did not collapse are tested on published shifted sets, and
adversarial images of some models are tried on the best one at the smallest ρ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from isthmus.checks.shift import correct_predictions, correct_under_corruptions
from isthmus.core.config import component, instance
from isthmus.core.errors import DataError
from isthmus.core.types import Coordinate, Metric
from isthmus.data.shift.shifted import ShiftedTestSet, load
from isthmus.metrics import CORRUPTIONS, errors_by_severity, measured_mce
from isthmus.studies.ceb.cifar_configs import CifarConfig, Given, shift_name, shift_options
from isthmus.studies.ceb.experiments import attacked_models
from isthmus.studies.ceb.transfers import Finished, pairs, transfer
from isthmus.studies.image_models import ModelSpec
from isthmus.studies.measured import fraction, measured
from isthmus.studies.store import Experiment, ResultStore, Stages
from isthmus.studies.trained_models import trained
from isthmus.training.run import load as load_run

CORRUPTED = "cifar10_c"


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
        *(transfer(config, store, pair) for pair in pairs(healthy, config.families[0], config.madry is not None)),
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


def shift_experiments(config: CifarConfig, store: ResultStore, models: Iterable[ModelSpec]) -> Iterator[Experiment]:
    """An experiment for each shifted set and model; if the set's files are absent, one for the set with the reason."""
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
    """Why a set cannot be measured, in one sentence; "" if it can. Loading reports damaged files."""
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
