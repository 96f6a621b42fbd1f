"""What A Closer Look measures on every model: trials, and what their cells hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from isthmus.attacks.result import RobustResult
from isthmus.attacks.threats import Linf
from isthmus.core.types import Metric
from isthmus.studies.old.image_models import Pgd
from isthmus.studies.old.laboratory import Attacker, Trial

SHOWN = (1, 2, 5, 10, 20, 50, 100)
"""Numbers of starts that tables show, and at which random models are judged."""

OTHERS = ("one_evaluation", "confident")
"""A random model's robust accuracies beside that of its average."""


def one_step(eps: Sequence[float]) -> Trial:
    """FGS at several ε: ``{"clean": images right, "fgsm": {ε: images that stand}, "blind": see blind}``."""

    def measure(attacker: Attacker) -> dict[str, Any]:
        results = {f"{each:g}": attacker.run(Linf(each), ["fgsm"]) for each in eps}
        first = next(iter(results.values()))
        found = {"clean": int(first.correct.sum()), "fgsm": _counts(results, "average"), "blind": blind(first)}
        if first.random:
            found["readings"] = {rule: {"fgsm": _counts(results, rule)} for rule in OTHERS}
        return found

    return Trial("fgsm", {"eps": eps}, measure)


def restarts(eps: float, pgd: Pgd, starts: int) -> Trial:
    """PGD: ``{"clean": images right, "standing": [before the first start, after it, after two, ...]}``, and "blind".

    A random model is judged at the image that came closest in all starts. So each number of starts takes an evaluation
    of its own, and only those of :data:`SHOWN` are measured: ``"starts"`` names them, and ``"standing"`` has no others.
    """
    options = {**pgd.plain(), "restarts": starts}

    def measure(attacker: Attacker) -> dict[str, Any]:
        result = attacker.run(Linf(eps), [{"name": "pgd", **options}])
        clean = int(result.correct.sum())
        if not result.random:
            return {"clean": clean, "standing": by_run(result, starts), "blind": blind(result)}
        fewer = [number for number in SHOWN if number < starts]
        results = [attacker.run(Linf(eps), [{"name": "pgd", **options, "restarts": number}]) for number in fewer]
        counts = {rule: [clean, *(_count(each, rule) for each in (*results, result))] for rule in ("average", *OTHERS)}
        return {
            "clean": clean,
            "standing": counts["average"],
            "starts": [*fewer, starts],
            "blind": blind(result),
            "readings": {rule: {"standing": counts[rule]} for rule in OTHERS},
        }

    return Trial("pgd", {"eps": eps, "pgd": options}, measure)


def ensemble(eps: float, suite: str | Sequence[Any]) -> Trial:
    """A suite: ``{"clean": images right, "left": images that stand after all, "by_attack": after each}``."""

    def measure(attacker: Attacker) -> dict[str, Any]:
        result = attacker.run(Linf(eps), suite)
        after = {label: round(share * len(result)) for label, share in result.by_attack.items()}
        found = {"clean": int(result.correct.sum()), "left": int(result.robust.sum()), "by_attack": after}
        if result.random:
            found["readings"] = {rule: {"left": _count(result, rule)} for rule in OTHERS}
        return found

    return Trial("ensemble", {"eps": eps, "suite": suite}, measure)


def _counts(results: Mapping[str, RobustResult], rule: str) -> dict[str, int]:
    return {name: _count(result, rule) for name, result in results.items()}


def _count(result: RobustResult, rule: str) -> int:
    """Images that stand by one of a result's three numbers."""
    metric: Metric = getattr(result, rule)
    assert metric.value is not None
    return round(metric.value * len(result))


def by_run(result: RobustResult, runs: int) -> list[int]:
    """Examples that stand before an attack's first run, and after each of its runs.

    One evaluation gives the whole curve: the ledger says which run broke an example, and an example's runs count in
    their order, whichever was faster.

    Args:
        result: of one attack alone.
        runs: how many runs it had for each example.
    """
    broken = torch.bincount(result.state.run[result.stage == 1], minlength=runs)
    before = int((result.stage != 0).sum())
    return [before, *(before - broken.cumsum(0)).tolist()]


def blind(result: RobustResult) -> list[int]:
    """Looks at which the gradient was exactly zero, so that the attack could not move; and looks in all."""
    return [int(result.state.zero_gradients.sum()), result.backward_passes]
