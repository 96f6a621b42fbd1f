"""Black-box attacks: images that are made on a seed's substitute once, and then shown to every model of that seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from isthmus.studies.guess_first import transfers
from isthmus.studies.guess_first.protocol import ATTACKS, SUBSTITUTE, CurvesConfig
from isthmus.studies.guess_first.workshop import Workshop, about, model_of, right
from isthmus.studies.old.laboratory import Subject
from isthmus.studies.store import Experiment


def cell(config: CurvesConfig, workshop: Workshop, names: Sequence[str], seed: int) -> Experiment:
    """All models of one seed on the images of one substitute, each attack kept by itself.

    ``{"substitute": what is said of it, "moved": {attack: images that it changed at the largest size}, "victims":
    {name: {"collapsed", "clean": images right, "attacks": {attack: {"eps": grid, "standing": images right both before
    and after}}}}}``. The substitute is among the victims: what is made on it should fool it.
    """
    recipes = {name: config.recipe(name, seed) for name in (*names, SUBSTITUTE)}
    given = about(recipes, config)
    settings = {"linf": config.linf, "l2": config.l2, "steps": config.transfer_steps, "cw": config.cw.plain()}

    def make() -> dict[str, Any]:
        subjects = {name: workshop.subject(name, seed) for name in recipes}
        clean = {name: right(model_of(each), each.images, each.labels) for name, each in subjects.items()}
        shown = {attack: _shown(config, workshop, subjects, clean, attack, given) for attack in ATTACKS}
        source = subjects[SUBSTITUTE].facts
        return {
            "trial": "black-box",
            "seed": seed,
            "n": source["n"],
            "collapsed": source["collapsed"],
            "substitute": source,
            "moved": {attack: found["moved"] for attack, found in shown.items()},
            "victims": {
                name: {
                    "collapsed": each.facts["collapsed"],
                    "clean": int(clean[name].sum()),
                    "attacks": {
                        attack: {"eps": list(config.sizes(attack)), "standing": found["standing"][name]}
                        for attack, found in shown.items()
                    },
                }
                for name, each in subjects.items()
            },
        }

    return Experiment(f"black-box, seed {seed}", {**given, **settings}, make)


def _shown(
    config: CurvesConfig,
    workshop: Workshop,
    subjects: Mapping[str, Subject],
    clean: Mapping[str, Tensor],
    attack: str,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """``{"moved", "standing": {name: images at each size}}``, kept: a kill costs one attack."""

    def judge() -> dict[str, Any]:
        standing: dict[str, list[int]] = {name: [] for name in subjects}
        moved = 0
        for images in _made(config, workshop, subjects[SUBSTITUTE], attack):
            moved = int((images != subjects[SUBSTITUTE].images).flatten(1).any(1).sum())
            for name, victim in subjects.items():
                held = clean[name] & right(model_of(victim), images, victim.labels)
                standing[name].append(int(held.sum()))
        return {"moved": moved, "standing": standing}

    options: dict[str, dict[str, Any]] = {"pgd": {"steps": config.transfer_steps}, "cw": {"cw": config.cw.plain()}}
    settings = {"attack": attack, "eps": config.sizes(attack), **options.get(attack, {})}
    return workshop.bench.part(Experiment(f"black-box {attack}", {**given, **settings}, judge))


def _made(config: CurvesConfig, workshop: Workshop, source: Subject, attack: str) -> transfers.Made:
    model, grid, tell = (
        model_of(source),
        config.sizes(attack),
        workshop.bench.telling(f"attacking, {attack}, black-box"),
    )
    if attack == "fgsm":
        return transfers.one_step(model, source, grid)
    if attack == "pgd":
        return transfers.many_steps(model, source, grid, config.transfer_steps, tell)
    return transfers.scaled(model, source, grid, config.cw.plain(), tell)
