"""What A Closer Look measures on every model: trials, and what their cells hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from isthmus.attacks.result import RobustResult
from isthmus.attacks.threats import Linf
from isthmus.studies.image_models import Pgd
from isthmus.studies.laboratory import Attacker, Trial


def one_step(eps: Sequence[float]) -> Trial:
    """FGS at several ε: ``{"clean": images right, "fgsm": {ε: images that stand}, "blind": see blind}``."""

    def measure(attacker: Attacker) -> dict[str, Any]:
        results = {f"{each:g}": attacker.run(Linf(each), ["fgsm"]) for each in eps}
        first = next(iter(results.values()))
        return {
            "clean": int(first.correct.sum()),
            "fgsm": {name: int(result.robust.sum()) for name, result in results.items()},
            "blind": blind(first),
        }

    return Trial("fgsm", {"eps": eps}, measure)


def restarts(eps: float, pgd: Pgd, starts: int) -> Trial:
    """PGD: ``{"clean": images right, "standing": [before the first start, after it, after two, ...]}``, and "blind"."""
    options = {**pgd.plain(), "restarts": starts}

    def measure(attacker: Attacker) -> dict[str, Any]:
        result = attacker.run(Linf(eps), [{"name": "pgd", **options}])
        return {"clean": int(result.correct.sum()), "standing": by_run(result, starts), "blind": blind(result)}

    return Trial("pgd", {"eps": eps, "pgd": options}, measure)


def ensemble(eps: float, suite: str | Sequence[Any]) -> Trial:
    """A suite: ``{"clean": images right, "left": images that stand after all, "by_attack": after each}``."""

    def measure(attacker: Attacker) -> dict[str, Any]:
        result = attacker.run(Linf(eps), suite)
        after = {label: round(share * len(result)) for label, share in result.by_attack.items()}
        return {"clean": int(result.correct.sum()), "left": int(result.robust.sum()), "by_attack": after}

    return Trial("ensemble", {"eps": eps, "suite": suite}, measure)


def by_run(result: RobustResult, runs: int) -> list[int]:
    """Examples that stand before an attack's first run, and after each of its runs.

    One evaluation gives the whole curve: the ledger says which run broke an example, and an example's runs count in
    their order, whichever was faster.

    Args:
        result: of one attack alone.
        runs: how many runs it had for each example.
    """
    broken = torch.bincount(result.ledger.run[result.stage == 1], minlength=runs)
    before = int((result.stage != 0).sum())
    return [before, *(before - broken.cumsum(0)).tolist()]


def blind(result: RobustResult) -> list[int]:
    """Looks at which the gradient was exactly zero, so that the attack could not move; and looks in all."""
    return [int(result.ledger.blind.sum()), result.backward_passes]
