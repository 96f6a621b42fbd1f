"""White-box attacks on one model: the smallest perturbation of each image that each attack finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

from isthmus.attacks.engine.evaluation import Snapshot
from isthmus.attacks.foolbox_protocol import bisect_pgd, scan_fgsm
from isthmus.attacks.minimal_norm import MinimalNorms, minimal_norms
from isthmus.studies.guess_first.protocol import ATTACKS, CurvesConfig
from isthmus.studies.guess_first.workshop import Workshop, about, model_of
from isthmus.studies.old.laboratory import Subject
from isthmus.studies.store import Experiment, Tell

Find = Callable[..., MinimalNorms]


def cell(config: CurvesConfig, workshop: Workshop, name: str, seed: int) -> Experiment:
    """Accuracy of a model over perturbation sizes, each attack's norms kept by themselves.

    ``{"clean": images right, "attacks": {"fgsm": {"eps": grid, "standing": images whose norm is larger, "never": those
    that the attack broke at no size, "median": of all norms or None where that is infinite}, "pgd": …, "cw": …}}``
    """
    attacks = {attack: config.sizes(attack) for attack in ATTACKS}
    given = about(config.recipe(name, seed), config, norms=attacks, **_options(config, "pgd"), cw=config.cw.plain())

    def make() -> dict[str, Any]:
        subject = workshop.subject(name, seed)
        norms = {attack: _norms(config, workshop, subject, attack) for attack in attacks}
        return {
            **subject.facts,
            "trial": "white-box",
            "clean": len(standing(norms["fgsm"], 0.0)),
            "attacks": {attack: _told(norms[attack], grid) for attack, grid in attacks.items()},
        }

    return Experiment(f"{name}, seed {seed}, white-box", given, make)


def _norms(config: CurvesConfig, workshop: Workshop, subject: Subject, attack: str) -> list[float]:
    """‖δ‖ of each image, ∞ where the attack found nothing; 0 for clean errors, and where nothing finite was answered.

    The grid does not matter here: another one needs no further attack.
    """
    name, seed = subject.facts["model"], subject.facts["seed"]
    options = _options(config, attack)
    given = about(config.recipe(name, seed), config, smallest=attack, **options)
    finds: dict[str, Find] = {
        "fgsm": scan_fgsm,
        "pgd": partial(bisect_pgd, bisections=config.bisections),
        "cw": partial(minimal_norms, norm="l2", attacks=[{"name": "cw", **config.cw.plain()}]),
    }
    tell = workshop.bench.telling(f"attacking, {attack}, white-box")
    kept = workshop.bench.part(
        Experiment(f"norms {attack} {name}", given, lambda: _found(finds[attack], subject, tell))
    )
    return [math.inf if size is None else size for size in kept["sizes"]]


def _options(config: CurvesConfig, attack: str) -> dict[str, Any]:
    """What determines an attack's norms, beside the model."""
    options: dict[str, dict[str, Any]] = {"pgd": {"bisections": config.bisections}, "cw": {"cw": config.cw.plain()}}
    return options.get(attack, {})


def _found(find: Find, subject: Subject, tell: Tell) -> dict[str, Any]:
    """``{"sizes": norms with None for ∞, "forward_passes", "backward_passes"}``."""

    def progress(at: Snapshot) -> None:
        tell(at.done, at.total)

    found = find(model_of(subject), subject.images, subject.labels, indices=subject.indices, progress=progress)
    # six digits: an image found at ε = 0.15 lies there, whatever float32 makes of the sum
    sizes = [
        None if math.isinf(size) else float(f"{size:.6g}") for size in found.sizes.nan_to_num(0.0, math.inf).tolist()
    ]
    return {"sizes": sizes, "forward_passes": found.forward_passes, "backward_passes": found.backward_passes}


def standing(norms: Sequence[float], eps: float) -> list[int]:
    """Positions of images that hold at ε; at 0 those that are right."""
    return [at for at, size in enumerate(norms) if size > eps]


def _told(norms: Sequence[float], grid: Sequence[float]) -> dict[str, Any]:
    middle = median(norms)
    return {
        "eps": list(grid),
        "standing": [len(standing(norms, eps)) for eps in grid],
        "never": sum(math.isinf(size) for size in norms),
        "median": None if math.isinf(middle) else float(f"{middle:.6g}"),
    }
