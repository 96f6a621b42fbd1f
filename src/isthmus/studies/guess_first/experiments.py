"""Experiments of tables 1 and 2 and of figure 3: models, trained and attacked, as rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.attacks.engine.run_options import RunOptions, Snapshot
from isthmus.attacks.foolbox_protocol import bisect_pgd, scan_fgsm
from isthmus.attacks.minimal_norm import minimal_norms
from isthmus.attacks.threats import Linf, parse
from isthmus.checks import Diagnosis
from isthmus.checks.context import Context
from isthmus.core.preserve_state import device_of
from isthmus.core.types import Metric
from isthmus.studies.guess_first import transfer_attacks
from isthmus.studies.guess_first.configs import (
    ATTACKS,
    LINF,
    NORMS,
    SIGMOID,
    SIZES,
    SUBSTITUTE,
    THROUGH,
    Attack,
    CurvesConfig,
    ModelsConfig,
    TableConfig,
)
from isthmus.studies.measured import Measured, fraction, measured
from isthmus.studies.store import Experiment, ResultStore, Stages, Tell
from isthmus.studies.trained_models import (
    Attacker,
    TrainedModel,
    correct,
    default_device,
    evaluation_images,
    test_accuracy,
)

Models = Mapping[str, TrainedModel]


def curves(config: CurvesConfig, store: ResultStore) -> Stages:
    """Every model trained and attacked white-box; then all models on the images of their seed's substitute."""
    found = yield _white_boxes(config, store)
    yield _black_boxes(config, store, _models(found))


def table(config: TableConfig, store: ResultStore) -> Stages:
    """The same, and beside the black-box attacks the ensemble and the diagnosis."""
    found = _models((yield _white_boxes(config, store)))
    # experiments on one model are far from each other, so that two processes do not load what the other one is at
    yield [
        *_black_boxes(config, store, found),
        *(_ensemble(config, store, model) for model in found),
        *(_diagnosis(config, store, model) for model in found),
    ]


def _models(found: Iterable[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Names and seeds of the models that could be trained."""
    coords = [Measured.from_plain(each).metrics[0].coords for each in found]
    return [(str(each["model"]), int(each["seed"])) for each in coords]


def trained(config: ModelsConfig, store: ResultStore, name: str, seed: int) -> TrainedModel:
    """Train a model, or take the one that is there; in mean mode."""
    run = store.train(config.recipe(name, seed))
    network: nn.Module = run.load().to(default_device())
    if name.endswith(THROUGH):
        network = nn.Sequential(network, nn.Sigmoid()).eval()
    return TrainedModel(run, {"mean": network}, evaluation_images(config.data, config.train_limit, config.images))


Measure = Callable[[TrainedModel, dict[str, Any]], tuple[list[Metric], dict[str, Any]]]
"""From a model, and what determines it and the images, to rows and details."""


def experiment_on(
    config: ModelsConfig,
    store: ResultStore,
    model: tuple[str, int],
    what: str,
    settings: Mapping[str, Any],
    measure: Measure,
) -> Experiment:
    """An experiment on one trained model.

    Args:
        model: its name and seed.
        what: is measured.
        settings: plain data that determine the measurement, beside model and images.
    """
    name, seed = model
    about = {"model": name, "recipe": config.recipe(name, seed), "images": config.images}

    def run() -> dict[str, Any]:
        found = trained(config, store, name, seed)
        rows, details = measure(found, about)
        return measured(rows, {"model": name, "seed": seed}, details=details, collapsed=found.collapsed)

    return Experiment(f"{name}, seed {seed}, {what}", {**about, **settings}, run)


def _curve(counts: Mapping[float, int], n: int, norm: str, **coords: str) -> list[Metric]:
    """Rows of robust accuracy over perturbation sizes; size 0 is of the clean images."""
    return [fraction("robust_accuracy", count, n, norm=norm, eps=eps, **coords) for eps, count in counts.items()]


# --- white-box attacks: the smallest perturbation of each image that each attack finds ---


def _white_boxes(config: CurvesConfig, store: ResultStore) -> list[Experiment]:
    return [_white_box(config, store, (name, seed)) for seed in range(config.seeds) for name in config.models]


def _white_box(config: CurvesConfig, store: ResultStore, model: tuple[str, int]) -> Experiment:
    grids = {attack: config.sizes(attack) for attack in ATTACKS}

    def measure(found: TrainedModel, about: dict[str, Any]) -> tuple[list[Metric], dict[str, Any]]:
        n = len(found.data)
        rows = [test_accuracy(found.run), Metric(name="chance", value=found.data.chance, unit="fraction", n=n)]
        for attack, grid in grids.items():
            norms = _norms(config, store, found, attack, about)
            counts = {eps: sum(size > eps for size in norms) for eps in (0.0, *grid)}
            rows += _curve(counts, n, NORMS[attack], attack=attack, access="white")
            rows.append(fraction("never_broken", sum(map(math.isinf, norms)), n, attack=attack))
            if math.isfinite(middle := median(norms)):
                rows.append(Metric(name="median_norm", value=middle, unit="", n=n, coords={"attack": attack}))
        return rows, {}

    settings = {"norms": grids, "bisections": config.bisections, "cw": config.cw.plain()}
    return experiment_on(config, store, model, "white-box", settings, measure)


def _norms(
    config: CurvesConfig, store: ResultStore, found: TrainedModel, attack: Attack, about: Mapping[str, Any]
) -> list[float]:
    """‖δ‖ of each image, ∞ if the attack found nothing; 0 for clean errors, and if no output was finite.

    They do not depend on the grid and are kept in a separate file: another grid needs no further attack.
    """
    cw, bisections = config.cw.plain(), config.bisections
    finds: dict[Attack, tuple[Any, dict[str, Any]]] = {
        "fgsm": (scan_fgsm, {}),
        "pgd": (partial(bisect_pgd, bisections=bisections), {"bisections": bisections}),
        "cw": (partial(minimal_norms, norm="l2", attacks=[{"name": "cw", **cw}]), {"cw": cw}),
    }
    find, options = finds[attack]
    tell, data = store.telling(f"attacking, {attack}, white-box"), found.data

    def measure() -> dict[str, Any]:
        def progress(at: Snapshot) -> None:
            tell(at.done, at.total)

        norms = find(
            found.modes["mean"], data.images, data.labels, options=RunOptions(indices=data.indices, progress=progress)
        )
        # six digits: an image found at ε = 0.15 lies there, whatever float32 makes of the sum
        sizes = [float(f"{size:.6g}") for size in norms.sizes.nan_to_num(0.0, math.inf).tolist()]
        passes = {"forward_passes": norms.forward_passes, "backward_passes": norms.backward_passes}
        return {"sizes": [None if math.isinf(size) else size for size in sizes], **passes}

    kept = store.part(Experiment(f"norms {attack} {about['model']}", {**about, "smallest": attack, **options}, measure))
    return [math.inf if size is None else size for size in kept["sizes"]]


# --- black-box attacks: images made once on a seed's substitute, which every model of that seed classifies ---


def _black_boxes(config: CurvesConfig, store: ResultStore, found: Sequence[tuple[str, int]]) -> list[Experiment]:
    """An experiment for each seed, with the models that could be trained; a sigmoid changes no prediction."""
    by_seed: dict[int, list[str]] = {}
    for name, seed in found:
        if name not in SIGMOID:
            by_seed.setdefault(seed, []).append(name)
    return [_black_box(config, store, names, seed) for seed, names in by_seed.items()]


def _black_box(config: CurvesConfig, store: ResultStore, names: Sequence[str], seed: int) -> Experiment:
    """All models of a seed on the substitute's images; the substitute is one of them, to show that these fool it.

    "moved" counts the images that an attack changed. Models that collapsed have no rows.
    """
    recipes = {name: config.recipe(name, seed) for name in (*names, SUBSTITUTE)}
    about = {"recipes": recipes, "images": config.images}
    settings = {"linf": config.linf, "l2": config.l2, "steps": config.transfer_steps, "cw": config.cw.plain()}

    def measure() -> dict[str, Any]:
        models = {name: trained(config, store, name, seed) for name in recipes}
        clean = {name: correct(each.modes["mean"], each.data) for name, each in models.items()}
        source = models[SUBSTITUTE]
        n = len(source.data)
        rows = [test_accuracy(source.run).named("test_accuracy", model=SUBSTITUTE)]
        for attack in ATTACKS:
            found = _transferred(config, store, models, clean, attack, about)
            rows.append(fraction("moved", found["moved"], n, model=SUBSTITUTE, attack=attack))
            for name, counts in found["robust"].items():
                if not models[name].collapsed:
                    at = dict(zip((0.0, *config.sizes(attack)), (int(clean[name].sum()), *counts), strict=True))
                    rows += _curve(at, n, NORMS[attack], attack=attack, access="black", model=name)
        return measured(rows, {"seed": seed}, collapsed=source.collapsed)

    return Experiment(f"black-box, seed {seed}", {**about, **settings}, measure)


def _transferred(
    config: CurvesConfig,
    store: ResultStore,
    models: Models,
    clean: Mapping[str, Tensor],
    attack: Attack,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """``{"moved", "robust": {name: images right before and after, at each size}}``, kept in a separate file."""

    def measure() -> dict[str, Any]:
        robust: dict[str, list[int]] = {name: [] for name in models}
        moved, source = 0, models[SUBSTITUTE].data
        tell = store.telling(f"attacking, {attack}, black-box")
        for images in transfer_attacks.images(config, models[SUBSTITUTE], attack, tell):
            moved = int((images != source.images).flatten(1).any(1).sum())
            for name, model in models.items():
                right = clean[name] & correct(model.modes["mean"], replace(model.data, images=images))
                robust[name].append(int(right.sum()))
        return {"moved": moved, "robust": robust}

    options: dict[str, dict[str, Any]] = {"pgd": {"steps": config.transfer_steps}, "cw": {"cw": config.cw.plain()}}
    settings = {"attack": attack, "eps": config.sizes(attack), **options.get(attack, {})}
    return store.part(Experiment(f"black-box {attack}", {**about, **settings}, measure))


# --- beyond the paper: a strong ensemble, and whether the robustness is genuine ---


def _ensemble(config: TableConfig, store: ResultStore, model: tuple[str, int]) -> Experiment:
    """A suite at the tables' sizes. An image that is broken at one ε is not attacked again at a larger one."""
    settings = {"suite": config.suite, "eps": SIZES}

    def measure(found: TrainedModel, about: dict[str, Any]) -> tuple[list[Metric], dict[str, Any]]:
        about = {**about, **settings}
        attacker = Attacker(store, found.modes["mean"], found.data, about)
        rows: list[Metric] = []
        for norm, grid in SIZES.items():
            counts = partial(_counts, attacker, config, norm)
            part = store.part(Experiment(f"ensemble {norm} {model[0]}", {**about, "norm": norm}, counts))
            robust = dict(zip(grid, part["robust"], strict=True))
            rows += _curve(robust, len(found.data), norm, attack="ensemble", access="white")
        return rows, {}

    return experiment_on(config, store, model, "ensemble", settings, measure)


def _counts(attacker: Attacker, config: TableConfig, norm: str) -> dict[str, Any]:
    rows, found = torch.arange(len(attacker.data)), []
    for eps in SIZES[norm]:
        if len(rows):
            rows = rows[attacker.run(parse(f"{norm}:{eps}"), config.suite, rows).robust]
        found.append(len(rows))
    return {"robust": found}


def _diagnosis(config: TableConfig, store: ResultStore, model: tuple[str, int]) -> Experiment:
    """The diagnosis at ℓ∞ 0.15 on some of the images.

    "doubted" is 1 if the verdict is not "holds" or a test failed, and its note says which.
    """
    settings = {"battery": LINF[0], **config.model_dump(include={"battery_images", "suite", "budget"})}
    tell = store.telling("diagnosing")
    return experiment_on(config, store, model, "verdict", settings, lambda found, _: _diagnosed(config, found, tell))


def _diagnosed(config: TableConfig, found: TrainedModel, tell: Tell) -> tuple[list[Metric], dict[str, Any]]:
    model, data, some = found.modes["mean"], found.data, slice(config.battery_images)
    device = device_of(model, data.images)
    context = Context(
        model=model,
        images=data.images[some].to(device),
        labels=data.labels[some].to(device),
        num_classes=len(data.classes),
        threat=Linf(LINF[0]),
        indices=data.indices[some],
        budget=config.budget,
        progress=tell,
    )
    result = Diagnosis(ensemble=config.suite, modes=("mean",)).run(context)
    (own,) = result.details["modes"].values()
    n, verdict = len(context.labels), own["verdict"]["status"]
    tests = {each["test"]: [each["status"], each["reason"]] for each in own["tests"]}
    failed = [test for test, (status, _) in tests.items() if status == "fail"]
    rows = [
        fraction("reported_accuracy", int(result.arrays["reported_robust"].sum()), n),
        fraction("corrected_accuracy", int(result.arrays["corrected_robust"].sum()), n),
        doubted(verdict, failed, n),
    ]
    follow_ups = {each: metric["value"] for each, metric in own["follow_ups"].items()}
    facts = {"status": result.status.value, "verdict": verdict, "tests": tests, "follow_ups": follow_ups}
    return rows, {"diagnosis": {**facts, "reason": result.reason}}


def doubted(verdict: str, failed: Sequence[str], n: int) -> Metric:
    """A row: whether a verdict or a failed test speaks against the robustness."""
    tests = ", ".join(test.replace("_", " ") for test in failed) or "none"
    note = f"{verdict}; tests failed: {tests}"
    return Metric(name="doubted", value=float(verdict != "holds" or bool(failed)), unit="", n=n, note=note)
