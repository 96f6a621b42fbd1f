"""Training the models of a study on images, and attacking them: what its cells hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.result import RobustResult
from isthmus.attacks.threats import Linf
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced
from isthmus.nets.modes import StochasticMode
from isthmus.studies.closer_look.image_models import ImageConfig, Kind, Pgd, title
from isthmus.studies.workbench import Cell, Workbench


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model in its modes, and the test images to judge it on.

    Attributes:
        modes: "mean", and "stochastic" for a bottleneck.
        indices: positions of the images in the test split.
        facts: what every cell says about the model.
    """

    modes: Mapping[str, nn.Module]
    images: Tensor
    labels: Tensor
    indices: Tensor
    classes: tuple[str, ...]
    facts: dict[str, Any]


Measure = Callable[["Attacker"], dict[str, Any]]
"""From attacks on one mode of a model to what its cell holds of that mode."""


@dataclass(frozen=True)
class Trial:
    """What is measured on every model, and plain data that determine it."""

    name: str
    settings: Mapping[str, Any]
    measure: Measure


@dataclass(frozen=True)
class Attacker:
    """Attacks on one mode of one subject, each kept while it goes."""

    bench: Workbench
    subject: Subject
    about: Mapping[str, Any]

    def run(self, eps: float, suite: str | Sequence[Any]) -> RobustResult:
        """Attack the mode in ℓ∞ at ε, seed 0, in units of images in [0, 1]."""
        subject, about = self.subject, {**self.about, "eps": eps, "suite": suite}
        tell = self.bench.telling(f"{self.about['mode']} mode, ε = {eps:.3g}")
        with self.bench.evaluation(about) as path:
            return robust_accuracy(
                subject.modes[self.about["mode"]],
                subject.images,
                subject.labels,
                Linf(eps),
                suite,
                indices=subject.indices,
                save_to=path,
                progress=lambda at: tell(at.done, at.total),
            )


class Laboratory:
    """Trains and attacks the models of one config; loads its images once."""

    def __init__(self, config: ImageConfig, bench: Workbench) -> None:
        self.config, self.bench = config, bench

    def cell(self, kind: Kind, knob: float | None, seed: int, trial: Trial) -> Cell:
        """One trial of one model, in each of its modes."""
        name, config = f"{title(kind, knob)}, seed {seed}, {trial.name}", self.config
        judged: dict[str, Any] = {"images": config.images, "modes": config.modes, "attack": trial.name}
        about = {"recipe": config.recipe(kind, knob, seed), **judged, **trial.settings}

        def make() -> dict[str, Any]:
            subject = self.subject(kind, knob, seed)
            found = {
                mode: trial.measure(Attacker(self.bench, subject, {**about, "mode": mode})) for mode in subject.modes
            }
            return {**subject.facts, "attack": trial.name, "modes": found}

        return Cell(name, about, make)

    def subject(self, kind: Kind, knob: float | None, seed: int) -> Subject:
        """Train a model, or take the one that is there."""
        run = self.bench.train(self.config.recipe(kind, knob, seed))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, result = run.load().to(device), run.info()["result"]
        images, labels, indices, classes = self._judged
        views: dict[str, nn.Module] = {"mean": model}
        if model.stochastic and "stochastic" in self.config.modes:
            views["stochastic"] = StochasticMode(model, model.samples).eval()
        facts = {
            "objective": kind,
            "knob": knob,
            "seed": seed,
            "n": len(labels),
            "chance": float(labels.bincount().max()) / len(labels),
            "test_accuracy": result["test_accuracy"],
            "collapsed": result["collapsed"],
        }
        return Subject(views, images, labels, indices, classes, facts)

    @cached_property
    def _judged(self) -> tuple[Tensor, Tensor, Tensor, tuple[str, ...]]:
        data = load({"name": self.config.data, "train_limit": self.config.train_limit})
        order = balanced(data.test.labels) if self.config.images else torch.arange(len(data.test))
        indices = order[: self.config.images]
        test = data.test.select(indices)
        return as_float(test.images), test.labels, indices, data.classes


def one_step(eps: Sequence[float]) -> Trial:
    """FGS at several ε: ``{"clean": images right, "fgsm": {ε: images that stand}, "blind": see blind}``."""

    def measure(attacker: Attacker) -> dict[str, Any]:
        results = {f"{each:g}": attacker.run(each, ["fgsm"]) for each in eps}
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
        result = attacker.run(eps, [{"name": "pgd", **options}])
        return {"clean": int(result.correct.sum()), "standing": by_run(result, starts), "blind": blind(result)}

    return Trial("pgd", {"eps": eps, "pgd": options}, measure)


def ensemble(eps: float, suite: str | Sequence[Any]) -> Trial:
    """A suite: ``{"clean": images right, "left": images that stand after all, "by_attack": after each}``."""

    def measure(attacker: Attacker) -> dict[str, Any]:
        result = attacker.run(eps, suite)
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
