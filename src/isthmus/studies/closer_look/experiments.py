"""Experiments of figures 1 to 4 and 8 to 10: models under attack, and loss surfaces around test images, as rows.

The robust accuracy of a random model is that of its average prediction. Two other counts appear as further
modes: "one_evaluation", which is the papers' rule, and "confident" (:class:`isthmus.attacks.result.RobustResult`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.attacks.loss_surface import Surface, SurfaceGrid, WorstSigns, random_signs
from isthmus.attacks.result import RobustResult
from isthmus.attacks.threats import Linf
from isthmus.core.errors import ConfigError, unknown
from isthmus.core.randomness import example_keys
from isthmus.core.types import Metric
from isthmus.studies.closer_look.configs import SHOWN, CifarConfig, FgsConfig, Pgd, RestartConfig, SurfaceConfig
from isthmus.studies.closer_look.surfaces import MOSTLY
from isthmus.studies.image_models import ModelSpec
from isthmus.studies.measured import Measured, fraction, measured
from isthmus.studies.store import Experiment, ResultStore, Stages, Tell
from isthmus.studies.trained_models import Attacker, Measurement, TrainedModel, correct, experiment, trained

_OTHERS = ("one_evaluation", "confident")
_DECIDING = {"eps", "pgd", "classes", "measured", "direction_starts", "grid", "images"}  # beside the recipe

# --- figures 1, 2, 3, 8 and 9 ---


def fgs(config: FgsConfig, store: ResultStore) -> Stages:
    """Figure 1: every model under FGS."""

    def measure(attacker: Attacker) -> Iterator[Metric]:
        for number, eps in enumerate(config.eps):
            result = attacker.run(Linf(eps), ["fgsm"])
            if not number:
                yield from _clean(attacker, result, "fgsm")
            yield from _robust(result, attack="fgsm", eps=eps)

    yield _on_mnist(config, store, config.betas, Measurement("fgsm", {"eps": config.eps}, measure))


def restarts(config: RestartConfig, store: ResultStore) -> Stages:
    """Figures 2 and 8: both networks under PGD with restarts."""
    yield _on_mnist(config, store, (config.beta,), pgd(config.eps, config.pgd, config.starts))


def _on_mnist(
    config: FgsConfig | RestartConfig, store: ResultStore, betas: Sequence[float], measurement: Measurement
) -> list[Experiment]:
    return [
        experiment(config, store, model, measurement, parameter="beta")
        for seed in range(config.seeds)
        for model in (ModelSpec("determ", None, seed), *(ModelSpec("vib", beta, seed) for beta in betas))
    ]


def cifar(config: CifarConfig, store: ResultStore) -> Stages:
    """Figures 3 and 9: every model under PGD, and under the ensemble."""
    models = [model for seed in range(config.seeds) for model in config.models(seed)]
    starts = [config.starts if model.parameter in (None, config.reference) else 1 for model in models]
    strong = ensemble(config.eps, config.ensemble)
    # experiments on one model are far from each other, so that two processes do not wait for one training
    yield [
        *(
            experiment(config, store, model, pgd(config.eps, config.pgd, count), parameter=config.parameter)
            for model, count in zip(models, starts, strict=True)
        ),
        *(experiment(config, store, model, strong, parameter=config.parameter) for model in models),
    ]


def pgd(eps: float, options: Pgd, starts: int) -> Measurement:
    """Accuracy under PGD after each number of starts, and the images that only further starts break.

    A random model is evaluated at the image that came closest in all starts. So each number of starts takes a separate
    evaluation, and only those of :data:`isthmus.studies.closer_look.configs.SHOWN` are measured.
    """

    def attack(number: int) -> list[dict[str, Any]]:
        return [{"name": "pgd", **options.plain(), "restarts": number}]

    def measure(attacker: Attacker) -> Iterator[Metric]:
        result = attacker.run(Linf(eps), attack(starts))
        yield from _clean(attacker, result, "pgd")
        if not result.random:
            counts = by_run(result, starts)[1:]
            for number, count in enumerate(counts, 1):
                coords: dict[str, Any] = {"attack": "pgd", "norm": "linf", "eps": eps, "restarts": number}
                yield fraction("robust_accuracy", count, len(result), **coords)
            yield fraction("broken_by_restarts", counts[0] - counts[-1], len(result), attack="pgd")
            return
        fewer = [number for number in SHOWN if number < starts]
        results = [*(attacker.run(Linf(eps), attack(number)) for number in fewer), result]
        for number, each in zip([*fewer, starts], results, strict=True):
            yield from _robust(each, attack="pgd", eps=eps, restarts=number)
        for rule, mode in _rules(result).items():
            lost = max(_count(results[0], rule) - _count(result, rule), 0)
            yield fraction("broken_by_restarts", lost, len(result), attack="pgd", **mode)

    return Measurement("pgd", {"eps": eps, "pgd": {**options.plain(), "restarts": starts}}, measure)


def ensemble(eps: float, suite: str | Sequence[Any]) -> Measurement:
    """Accuracy under a suite, and after each of its attacks."""

    def measure(attacker: Attacker) -> Iterator[Metric]:
        result = attacker.run(Linf(eps), suite)
        yield from _clean(attacker, result, "ensemble")
        yield from _robust(result, attack="ensemble", eps=eps)
        for label, accuracy in result.by_attack.items():
            yield fraction("accuracy_after", round(accuracy * len(result)), len(result), attack=label)

    return Measurement("ensemble", {"eps": eps, "suite": suite}, measure)


def _clean(attacker: Attacker, result: RobustResult, attack: str) -> Iterator[Metric]:
    """Accuracy without attack, of the best constant prediction, and how often the gradient was exactly zero."""
    n, coords = len(result), {"attack": attack}
    yield fraction("clean_accuracy", int(result.correct.sum()), n, attack=attack)
    yield Metric(name="chance", value=attacker.data.chance, unit="fraction", n=n, coords=coords)
    if queries := result.backward_passes:
        zero = int(result.state.zero_gradients.sum()) / queries
        yield Metric(name="zero_gradients", value=zero, unit="fraction", n=queries, coords=coords)


def _robust(result: RobustResult, **coords: Any) -> Iterator[Metric]:
    for rule, mode in _rules(result).items():
        yield fraction("robust_accuracy", _count(result, rule), len(result), norm="linf", **coords, **mode)


def _rules(result: RobustResult) -> dict[str, dict[str, str]]:
    """Counts of a result, with the mode that each belongs to if it is not the attacked one."""
    return {"average": {}, **({rule: {"mode": rule} for rule in _OTHERS} if result.random else {})}


def _count(result: RobustResult, rule: str) -> int:
    metric: Metric = getattr(result, rule)
    assert metric.value is not None
    return round(metric.value * len(result))


def by_run(result: RobustResult, runs: int) -> list[int]:
    """Examples that are robust before an attack's first run, and after each of its runs.

    One evaluation gives the whole curve: its state says which run broke an example, and an example's runs count in
    their order, whichever was faster.

    Args:
        result: of one attack alone.
        runs: number of its runs for each example.
    """
    broken = torch.bincount(result.state.run[result.stage == 1], minlength=runs)
    before = int((result.stage != 0).sum())
    return [before, *(before - broken.cumsum(0)).tolist()]


# --- figures 4 and 10: the choice of a model, and loss surfaces around its test images ---


def surfaces(config: SurfaceConfig, store: ResultStore) -> Stages:
    """The models, trained and ranked; then the surfaces of the best."""
    strong = ensemble(config.eps, config.ensemble)
    models = [ModelSpec(config.kind, config.tradeoffs[0], seed) for seed in range(config.seeds)]
    ranked = yield [experiment(config, store, model, strong, parameter=config.parameter) for model in models]
    seed = best_seed(ranked)
    if seed is None:
        return
    model = models[seed]

    def measure() -> dict[str, Any]:
        return _surfaces(trained(config, store, model), config, model, store.telling("surfaces"))

    about = {"recipe": config.recipe(model), **config.model_dump(mode="json", include=_DECIDING)}
    yield [Experiment(f"{model.title}, seed {seed}, surfaces", about, measure)]


def best_seed(ranked: Sequence[Mapping[str, Any]]) -> int | None:
    """The seed of the model with the highest accuracy under the ensemble; None if all collapsed."""
    found: dict[int, float] = {}
    for each in map(Measured.from_plain, ranked):
        rows = {row.name: row for row in each.metrics}
        if not each.collapsed and rows["clean_accuracy"].value:
            found[int(rows["robust_accuracy"].coords["seed"])] = rows["robust_accuracy"].value or 0.0
    return max(found, key=lambda seed: found[seed]) if found else None


def _surfaces(found: TrainedModel, config: SurfaceConfig, model: ModelSpec, tell: Tell) -> dict[str, Any]:
    """Loss surfaces of a model in mean mode around test images that it classifies correctly.

    Details: offsets u (and v) of the grid; for the first image of each class, the cross-entropy on its grid, nats,
    towards PGD's worst perturbation and towards a random one; and for every image how flat both are.

    Raises:
        ConfigError: a class that the data do not have.
    """
    data, network = found.data, found.modes["mean"]
    shown, others = _chosen(found, config)
    rows = torch.cat([shown, others])
    images, labels, indices = data.images[rows], data.labels[rows], data.indices[rows]
    keys = example_keys(0, indices)
    options = {"restarts": config.direction_starts, **config.pgd.model_dump()}
    directions = {
        "worst": WorstSigns(Linf(config.eps), **options).find(network, images, labels, keys),
        "random": random_signs(keys, images.shape[1:]),
    }
    across = random_signs(keys, images.shape[1:], second=True)
    pictures: list[dict[str, Any]] = []
    flat: dict[str, list[float]] = {}
    offsets: list[float] = []
    for name, first in directions.items():
        surface = SurfaceGrid(config.eps, config.grid).measure(network, images, labels, first, across)
        flat[name] = surface.flat()[len(shown) :].tolist()
        for row in range(len(shown)):
            facts = {"class": data.classes[int(labels[row])], "index": int(indices[row]), "direction": name}
            pictures.append(facts | _picture(surface, row))
        offsets = surface.offsets.tolist()
        tell(len(flat), len(directions))
    metrics = [
        fraction("flat_images", sum(value > MOSTLY for value in values), len(values), direction=name)
        for name, values in flat.items()
    ]
    details = {"surfaces": {"offsets": offsets, "flat": flat, "pictures": pictures}}
    return measured(metrics, model.coords(config.parameter), details=details)


def _chosen(found: TrainedModel, config: SurfaceConfig) -> tuple[Tensor, Tensor]:
    """Positions of the images to show and of those to measure, among the correctly classified ones."""
    data = found.data
    if missing := [name for name in config.classes if name not in data.classes]:
        raise ConfigError(unknown("class", missing[0], data.classes))
    right = correct(found.modes["mean"], data).nonzero().squeeze(1)
    numbers = [data.classes.index(name) for name in config.classes]
    return torch.cat([right[data.labels[right] == number][:1] for number in numbers]), right[: config.measured]


def _picture(found: Surface, row: int) -> dict[str, Any]:
    loss = [[float(f"{value:.4g}") for value in line] for line in found.loss[row].tolist()]
    return {"flat": float(found.flat()[row]), "broken": bool(found.broken[row]), "loss": loss}
