"""Experiments of figures 1, 2, 3, 8 and 9: models under FGS, PGD with restarts and an ensemble, as rows.

The robust accuracy of a random model is that of its average prediction. The two other counts have modes of their own,
"one_evaluation", which is the papers' rule, and "confident" (:class:`isthmus.attacks.result.RobustResult`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from isthmus.attacks.result import RobustResult
from isthmus.attacks.threats import Linf
from isthmus.core.types import Metric
from isthmus.studies.closer_look.configs import SHOWN, CifarConfig, FgsConfig, Pgd, RestartConfig
from isthmus.studies.image_models import ModelSpec
from isthmus.studies.measured import fraction
from isthmus.studies.store import ResultStore, Stages
from isthmus.studies.trained_models import Attacker, Measurement, experiment

_OTHERS = ("one_evaluation", "confident")


def fgs(config: FgsConfig, store: ResultStore) -> Stages:
    """Figure 1: every model under FGS."""
    measurement = Measurement("fgsm", {"eps": config.eps}, lambda attacker: _fgs(attacker, config.eps))
    yield [
        experiment(config, store, model, measurement, parameter="beta")
        for seed in range(config.seeds)
        for model in (ModelSpec("determ", None, seed), *(ModelSpec("vib", beta, seed) for beta in config.betas))
    ]


def _fgs(attacker: Attacker, grid: Sequence[float]) -> Iterator[Metric]:
    for number, eps in enumerate(grid):
        result = attacker.run(Linf(eps), ["fgsm"])
        if not number:
            yield from _clean(attacker, result, "fgsm")
        yield from _robust(result, attack="fgsm", eps=eps)


def restarts(config: RestartConfig, store: ResultStore) -> Stages:
    """Figures 2 and 8: both networks under PGD with restarts."""
    measurement = pgd(config.eps, config.pgd, config.starts)
    yield [
        experiment(config, store, model, measurement, parameter="beta")
        for seed in range(config.seeds)
        for model in (ModelSpec("determ", None, seed), ModelSpec("vib", config.beta, seed))
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

    A random model is evaluated at the image that came closest in all starts. So each number of starts takes an
    evaluation of its own, and only those of :data:`isthmus.studies.closer_look.configs.SHOWN` are measured.
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
        for label, left in result.by_attack.items():
            yield fraction("accuracy_after", round(left * len(result)), len(result), attack=label)

    return Measurement("ensemble", {"eps": eps, "suite": suite}, measure)


def _clean(attacker: Attacker, result: RobustResult, attack: str) -> Iterator[Metric]:
    """Accuracy without attack, of the best constant prediction, and how often the gradient was exactly zero."""
    n = len(result)
    yield fraction("clean_accuracy", int(result.correct.sum()), n, attack=attack)
    yield Metric(name="chance", value=attacker.data.chance, unit="fraction", n=n, coords={"attack": attack})
    if result.backward_passes:
        zero = int(result.state.zero_gradients.sum()) / result.backward_passes
        coords: dict[str, Any] = {"attack": attack}
        yield Metric(name="zero_gradients", value=zero, unit="fraction", n=result.backward_passes, coords=coords)


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
