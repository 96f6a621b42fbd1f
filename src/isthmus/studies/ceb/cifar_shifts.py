"""Models of CIFAR-10 on published sets under shift, CIFAR-10.1 and CIFAR-10-C, where their files are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from isthmus.checks.shift import correct_predictions, correct_under_corruptions
from isthmus.core.config import component, instance
from isthmus.core.errors import DataError
from isthmus.data.shift.shifted import ShiftedTestSet, load
from isthmus.metrics import CORRUPTIONS, errors_by_severity, measured_mce
from isthmus.studies.ceb.cifar import CifarConfig
from isthmus.studies.ceb.cifar_choice import Model
from isthmus.studies.old.laboratory import Laboratory
from isthmus.studies.store import Experiment

Given = str | Mapping[str, Any]
CORRUPTED = "cifar10_c"


def cells(config: CifarConfig, laboratory: Laboratory, trained: Sequence[Model]) -> list[Experiment]:
    """For each set a cell for each model; where the set's files are not there, one that says so.

    Whether they are there is part of what determines a cell: it is measured again once they are.
    """
    found = []
    for given in config.shifts:
        options, name = _options(given), title(given)
        reason = absent(given, config.data)
        if reason:
            value = {"shift": name, "note": reason}
            found.append(
                Experiment(f"{name}, not measured", {"shift": options, "absent": reason}, partial(dict, value))
            )
            continue
        for model in trained:
            key = (model["objective"], model["knob"], model["seed"])
            about = {"shift": options, "recipe": config.recipe(*key)}
            label = f"{name}, {key[0]}{'' if key[1] is None else f' {key[1]:g}'}, seed {key[2]}"
            found.append(Experiment(label, about, partial(_measure, laboratory, given, key)))
    return found


def title(given: Given) -> str:
    """A set's name: "cifar10_1:v6", "cifar10_c"."""
    options = _options(given)
    return f"{options['name']}:{options.get('version') or 'v6'}" if options["name"] == "cifar10_1" else options["name"]


def absent(given: Given, data: str) -> str:
    """Why a set cannot be measured on, in one sentence; "" where it can.

    Files that are there but damaged are a fault that loading names.
    """
    if data != "cifar10":
        return f"It is for classifiers of cifar10; these are of {data}."
    options = _options(given)
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


def _measure(laboratory: Laboratory, given: Given, key: tuple[Any, Any, int]) -> dict[str, Any]:
    """``{"shift", "kind", "rho", "seed", "n"}`` and "right" images, or "errors" and their "average" with interval."""
    kind, rho, seed = key
    subject = laboratory.subject(kind, rho, seed)
    model, facts = subject.modes["mean"], {"shift": title(given), "kind": kind, "rho": rho, "seed": seed}
    if _options(given)["name"] != CORRUPTED:
        outcome = correct_predictions(model, load(given, subject.classes))
        return {**facts, "n": len(outcome), "right": int(outcome.sum())}
    tell = laboratory.bench.telling(title(given))
    outcomes = correct_under_corruptions(model, given, subject.classes, progress=tell)
    average = measured_mce(outcomes, seed=0, baseline=None)
    assert average.interval is not None
    errors = {name: list(values) for name, values in errors_by_severity(outcomes).items()}
    spread = [average.interval.low, average.interval.high]
    return {**facts, "n": average.n, "errors": errors, "average": average.value, "interval": spread}


def _options(given: Given) -> dict[str, Any]:
    if not isinstance(given, str):
        return dict(given)
    name, _, version = given.partition(":")
    return {"name": name, "version": version} if version else {"name": name}
