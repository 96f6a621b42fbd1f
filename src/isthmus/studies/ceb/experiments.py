"""Experiments of the CEB studies on Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.attacks.threats import parse
from isthmus.checks.ood_images import configured, names_of
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError
from isthmus.core.types import CheckResult, Coordinate, Interval, Metric
from isthmus.data.loading import load
from isthmus.metrics import wilson
from isthmus.studies.ceb.configs import (
    CalibrationConfig,
    Curve,
    DetectionConfig,
    FashionConfig,
    RandomLabelsConfig,
    SweepConfig,
)
from isthmus.studies.image_models import ModelSpec
from isthmus.studies.measured import fraction, measured
from isthmus.studies.store import Experiment, ResultStore, Stages
from isthmus.studies.trained_models import (
    Attacker,
    Measurement,
    TrainedModel,
    correct,
    experiment,
    model_experiment,
    run_check,
    test_accuracy,
)
from isthmus.studies.verdicts import bonferroni
from isthmus.training.evaluation import count_right

TERMS = ("rate_lower_max", "epoch_rate_lower", "epoch_rate", "epoch_residual")
"""Terms of the loss in training that are stored with every attacked model."""
DETECTION_METRICS = ("fpr95_in", "auroc", "aupr_in")
CALIBRATION_METRICS = ("ece", "overconfidence", "nll", "brier")


def fashion(config: FashionConfig, store: ResultStore) -> Stages:
    """CEB, figure 1: every model, trained and attacked."""
    yield attacked_models(config, store)


def attacked_models(config: SweepConfig, store: ResultStore) -> list[Experiment]:
    """An experiment for every model: the attacks of the config's curves."""
    curves = config.curves()

    def measure(attacker: Attacker) -> Iterator[Metric]:
        right = correct(attacker.model, attacker.data)
        yield fraction("clean_accuracy", int(right.sum()), len(right))
        for curve in curves:
            yield from _curve(attacker, curve, right)

    attacks = Measurement("attacked", {"curves": [curve.plain() for curve in curves]}, measure)
    return [experiment(config, store, model, attacks, TERMS) for model in config.models()]


def _curve(attacker: Attacker, curve: Curve, right: Tensor) -> Iterator[Metric]:
    """Rows of one attack: robust accuracy at each ε, from ε = 0, or the success of a targeted attack.

    Success is the fraction of the correctly classified images, including those of the target class, that the attack
    moves to the target class. The store keeps each curve, so that a killed study loses one at most.
    """
    follow = robust_counts if curve.target_class is None else targeted_counts
    about = {**attacker.about, "curves": curve.plain()}
    part = Experiment(f"curve {curve.name} {curve.norm}", about, lambda: follow(attacker, curve, right))
    found = attacker.store.part(part)
    coords: dict[str, Coordinate] = {"attack": curve.name, "norm": curve.norm}
    name, grid = ("robust_accuracy", (0.0, *curve.eps)) if curve.target_class is None else ("success", curve.eps)
    for eps, count in zip(grid, found["counts"], strict=True):
        yield fraction(name, count, found["n"], eps=eps, **coords)


def robust_counts(attacker: Attacker, curve: Curve, right: Tensor) -> dict[str, Any]:
    """Images that are classified correctly at ε = 0 and at each ε of the curve.

    An image broken at one ε is not attacked at a larger one, whose ball contains the adversarial example.
    """
    left = torch.arange(len(right))[: curve.images]
    n, counts = len(left), [int(right[left].sum())]
    for eps in curve.eps:
        if len(left):
            result = attacker.run(parse(f"{curve.norm}:{eps}"), curve.suite, left)
            left = left[result.robust]
        counts.append(len(left))
    return {"n": n, "counts": counts}


def targeted_counts(attacker: Attacker, curve: Curve, right: Tensor) -> dict[str, Any]:
    """Images that a targeted attack moves to its class at each ε, of ``n`` correctly classified ones."""
    chosen = torch.arange(len(right))[: curve.images]
    chosen = chosen[right[chosen]]
    left = chosen[attacker.data.labels[chosen] != curve.target_class]
    eligible, counts = len(left), []
    for eps in curve.eps:
        if len(left):
            result = attacker.run(parse(f"{curve.norm}:{eps}"), curve.suite, left, curve.target_class)
            left = left[~result.broken]
        counts.append(eligible - len(left))
    return {"n": len(chosen), "counts": counts}


def random_labels(config: RandomLabelsConfig, store: ResultStore) -> Stages:
    """Entropy, section 3.1.5: the accuracy of every model on the random labels that it was trained on."""
    yield [_memory(config, store, model) for model in config.models()]


def _memory(config: RandomLabelsConfig, store: ResultStore, model: ModelSpec) -> Experiment:
    recipe = config.recipe(model)

    def measure() -> dict[str, Any]:
        run, train = store.train(recipe), load(recipe["data"]).train
        course = [line["epoch_accuracy"] for line in run.metrics() if "epoch_accuracy" in line]
        chance, n = float(train.labels.bincount().max()) / len(train), len(train)
        rows = [
            fraction("train_accuracy", int(count_right(run.load(), train, {})), n),
            Metric(name="constant_accuracy", value=chance, unit="fraction", n=n),
            test_accuracy(run),
            *onset_rows(course, n, chance),
            *(
                Metric(name="epoch_accuracy", value=value, unit="fraction", n=n, coords={"epoch": epoch})
                for epoch, value in enumerate(course, 1)
            ),
        ]
        return measured(rows, model.coords())

    name = f"{model.title}, seed {model.seed}, random labels"
    return Experiment(name, {"recipe": recipe, "measured": "memory"}, measure)


def onset_rows(course: Sequence[float], n: int, chance: float) -> list[Metric]:
    """Rows: the number of epochs, whether any is significantly above chance (1 or 0), and the first that is."""
    first = onset(course, n, chance)
    rows = [
        Metric(name="epochs", value=len(course), unit="epochs", n=n),
        Metric(name="learned", value=float(first is not None), unit="", n=n),
    ]
    if first is not None:
        interval = Interval(low=first - 0.5, high=first + 0.5, method="half an epoch")
        rows.append(Metric(name="onset", value=first, unit="epochs", n=n, interval=interval))
    return rows


def onset(accuracies: Sequence[float], n: int, chance: float) -> int | None:
    """The first epoch, counted from 1, whose accuracy is significantly above chance; None if none is.

    The accuracy of an epoch counts each example before the step that learns from it, so that it is at chance without
    memory. The level of the intervals is corrected for the number of epochs.
    """
    level = bonferroni(len(accuracies))
    above = (epoch for epoch, value in enumerate(accuracies, 1) if wilson(round(value * n), n, level).low > chance)
    return next(above, None)


def detection(config: DetectionConfig, store: ResultStore) -> Stages:
    """Entropy, table 1: every model on every out-distribution."""
    given = [configured(out) for out in config.outs]
    outs = list(zip(names_of(given), given, strict=True))
    yield [_detection(config, store, model, *out) for model in config.models() for out in outs]


def _detection(config: DetectionConfig, store: ResultStore, model: ModelSpec, name: str, out: Component) -> Experiment:
    check: dict[str, Any] = {
        "name": "ood_detection",
        "outs": [out.plain(given_only=True)],
        "samples": config.samples,
        "attacked": config.attacked,
        "resamples": config.resamples,
    }

    def measure(found: TrainedModel) -> tuple[Iterator[Metric], dict[str, Any]]:
        result = run_check(found.modes["mean"], found.data, check, store.telling(f"detecting {name}"))
        details = {"left_out": result.details["left_out"], "notice": result.details["outs"][0]["notice"]}
        return _detection_rows(result, name), details

    return model_experiment(config, store, model, name, {"check": check}, measure, {**model.coords(), "out": name})


def _detection_rows(result: CheckResult, out: str) -> Iterator[Metric]:
    """Metrics of each score in each mode; n of the false positive rate is the number of the other images."""
    (facts,) = result.details["outs"]
    for score in result.details["scores"]:
        coords = {key: score[key] for key in ("score", "mode") if key in score}
        for name in DETECTION_METRICS:
            found = result.metrics.get(name, data=out, **coords)
            if found is not None and found.value is not None and found.interval is not None:
                n = facts["n"] if name == "fpr95_in" else found.n
                update = {"n": n, "coords": {"mode": "mean", **coords}}
                yield found.model_copy(update=update)
    success = result.metrics.get("attack_success", data=out)
    if success is not None:
        yield success.model_copy(update={"coords": {}})


def calibration(config: CalibrationConfig, store: ResultStore) -> Stages:
    """Entropy, figure 5: every model after every step of ``training.snapshots``.

    Raises:
        ConfigError: there is no such step.
    """
    if not config.training.get("snapshots"):
        raise ConfigError("This study evaluates models after the steps in training.snapshots; give some.")
    yield [_calibration(config, store, model) for model in config.models()]


def _calibration(config: CalibrationConfig, store: ResultStore, model: ModelSpec) -> Experiment:
    check = {"name": "calibration", "bins": config.bins, "resamples": config.resamples}

    def measure(found: TrainedModel) -> tuple[list[Metric], dict[str, Any]]:
        rows: list[Metric] = []
        bins = {}
        for step in config.training["snapshots"]:
            result = run_check(found.run.load(step), found.data, check, store.telling(f"evaluating step {step}"))
            right = fraction("accuracy", int(result.arrays["correct"].sum()), len(found.data))
            rows += [each.named(each.name, step=step) for each in (right, *_calibration_rows(result))]
            bins[f"{step}"] = [each for each in result.details["bins"]["mean"]["equal_width"] if each["n"]]
        return rows, {"bins": bins} if model.seed == config.first_seed else {}

    return model_experiment(config, store, model, "calibration", {"check": check}, measure, model.coords())


def _calibration_rows(result: CheckResult) -> Iterator[Metric]:
    for name in CALIBRATION_METRICS:
        metric = result.metrics.one(name, mode="mean")
        unit = "points" if name == "overconfidence" else metric.unit
        yield metric.model_copy(update={"unit": unit, "coords": {}})
