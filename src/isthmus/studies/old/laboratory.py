"""Training the models of a study on images, and attacking them: what its cells hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.result import RobustResult
from isthmus.attacks.threats import Threat
from isthmus.audits import AuditOptions, audit
from isthmus.core.files import sha256
from isthmus.core.types import CheckResult
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced
from isthmus.models.bottleneck import Bottleneck
from isthmus.models.modes import StochasticMode
from isthmus.studies.old.image_models import ImageConfig, Kind, title
from isthmus.studies.old.study import data_options
from isthmus.studies.store import Experiment, ResultStore, Tell
from isthmus.training.run import Run


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


Judged = tuple[Tensor, Tensor, Tensor, tuple[str, ...]]
"""Images, labels, positions in the test split, and the names of the classes."""
Measure = Callable[["Attacker"], dict[str, Any]]
"""From attacks on one mode of a model to what its cell holds of that mode."""


@dataclass(frozen=True)
class Trial:
    """What is measured on every model, and plain data that determine it.

    What ``measure`` gives of a random model may hold "readings": name -> what other ways of counting find instead
    (:data:`isthmus.studies.old.image_models.NAMES`).
    """

    name: str
    settings: Mapping[str, Any]
    measure: Measure


@dataclass(frozen=True)
class Attacker:
    """Attacks on one mode of one subject, each kept while it goes."""

    bench: ResultStore
    subject: Subject
    about: Mapping[str, Any]

    @property
    def model(self) -> nn.Module:
        """The mode that is attacked."""
        return self.subject.modes[self.about["mode"]]

    def run(
        self, threat: Threat, suite: str | Sequence[Any], rows: Tensor | None = None, target: int | None = None
    ) -> RobustResult:
        """Attack the mode, seed 0.

        Args:
            rows: which of the subject's images; None for all.
            target: a class to reach, for a targeted attack; none of the images may be of it.
        """
        subject = self.subject
        chosen = torch.arange(len(subject.labels)) if rows is None else rows
        about = {**self.about, "threat": str(threat), "suite": suite, "target": target, "rows": sha256(chosen.numpy())}
        tell = self.bench.telling(f"attacking, {self.about['mode']} mode, {threat}")
        labels = subject.labels[chosen]
        with self.bench.evaluation(about) as path:
            return robust_accuracy(
                self.model,
                subject.images[chosen],
                labels,
                threat,
                suite,
                options=RunOptions(
                    targets=None if target is None else torch.full_like(labels, target),
                    indices=subject.indices[chosen],
                    save_to=path,
                    progress=lambda at: tell(at.done, at.total),
                ),
            )


class Laboratory:
    """Trains and attacks the models of one config; loads its images once."""

    def __init__(self, config: ImageConfig, bench: ResultStore) -> None:
        self.config, self.bench = config, bench

    def cell(self, kind: Kind, knob: float | None, seed: int, trial: Trial) -> Experiment:
        """One trial of one model, in each of its modes."""
        name, config = f"{title(kind, knob)}, seed {seed}, {trial.name}", self.config
        judged: dict[str, Any] = {"images": config.images, "modes": config.modes, "attack": trial.name}
        if "stochastic" in config.modes:
            judged["random"] = "average, one evaluation, confident"  # what is counted; see image_models.NAMES
        about = {"recipe": config.recipe(kind, knob, seed), **judged, **trial.settings}

        def make() -> dict[str, Any]:
            subject = self.subject(kind, knob, seed)
            found: dict[str, Any] = {}
            for mode in subject.modes:
                measured = trial.measure(Attacker(self.bench, subject, {**about, "mode": mode}))
                others = measured.pop("readings", {})
                found |= {mode: measured, **{name: {**measured, **counts} for name, counts in others.items()}}
            return {**subject.facts, "attack": trial.name, "modes": found}

        return Experiment(name, about, make)

    def subject(self, kind: Kind, knob: float | None, seed: int) -> Subject:
        """Train a model, or take the one that is there."""
        run = self.bench.train(self.config.recipe(kind, knob, seed))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = run.load().to(device)
        images, labels, indices, classes = self._judged
        views: dict[str, nn.Module] = {"mean": model}
        if isinstance(model, Bottleneck) and model.stochastic and "stochastic" in self.config.modes:
            views["stochastic"] = StochasticMode(model, model.samples).eval()
        facts = {"objective": kind, "knob": knob, "seed": seed, **facts_of(run, labels)}
        return Subject(views, images, labels, indices, classes, facts)

    @cached_property
    def _judged(self) -> Judged:
        return judged(self.config.data, self.config.train_limit, self.config.images)


def ask(
    model: nn.Module, images: Tensor, labels: Tensor, indices: Tensor, check: dict[str, Any], tell: Tell
) -> CheckResult:
    """What one check says of a model, on the GPU where there is one.

    Args:
        check: its name, with options. It is none that looks at the audit's threat.
        tell: told how far it is.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = audit(
        model.to(device),
        images,
        labels,
        "l2:1",  # an audit wants one
        [check],
        options=AuditOptions(indices=indices, debug=True, progress=lambda _, done, total: tell(done, total)),
    )
    return found.results[check["name"]]


def judged(data: str | Mapping[str, Any], train_limit: int | None, number: int | None) -> Judged:
    """The test images that models of a data set are judged on: so many, class-balanced, or all where None."""
    loaded = load(data_options(data, train_limit=train_limit))
    order = balanced(loaded.test.labels) if number else torch.arange(len(loaded.test))
    indices = order[:number]
    test = loaded.test.select(indices)
    return as_float(test.images), test.labels, indices, loaded.classes


def facts_of(run: Run, labels: Tensor) -> dict[str, Any]:
    """What every cell says of the run that it judges, and of the images with these labels that it judges it on."""
    info = run.info()
    result = info["result"]
    return {
        "n": len(labels),
        "chance": float(labels.bincount().max()) / len(labels),
        "test_accuracy": result["test_accuracy"],
        "tested": info["data"]["test"],
        "collapsed": result["collapsed"],
        "trained": {name: value for name, value in result.items() if isinstance(value, float)},
    }
