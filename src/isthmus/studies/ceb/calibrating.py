"""Judging the confidence of one model after each kept step: what a cell of the calibration study holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.core.errors import ConfigError
from isthmus.core.types import CheckResult
from isthmus.studies.old.evidence import ends
from isthmus.studies.old.image_models import Kind, title
from isthmus.studies.old.laboratory import Laboratory, ask
from isthmus.studies.store import Experiment, ResultStore

if TYPE_CHECKING:
    from isthmus.studies.ceb.calibration import Config

MEASURES = ("ece", "overconfidence", "nll", "brier")


def cells(config: Config, bench: ResultStore) -> list[Experiment]:
    """A cell for every model and seed.

    Raises:
        ConfigError: no step is kept.
    """
    if not config.training.get("snapshots"):
        raise ConfigError("This study judges models after the steps in training.snapshots; give some.")
    laboratory = Laboratory(config, bench)
    return [_cell(config, bench, laboratory, *model) for model in config.every()]


def _cell(
    config: Config, bench: ResultStore, laboratory: Laboratory, kind: Kind, knob: float | None, seed: int
) -> Experiment:
    """``{"steps": [{"step", "accuracy", "bins": those that are not empty, "ece": [value, low, high], …}, …], …}``.

    It is the check ``calibration`` that measures, in mean mode.
    """
    recipe = config.recipe(kind, knob, seed)
    check = {"name": "calibration", "bins": config.bins, "resamples": config.resamples}

    def measure() -> dict[str, Any]:
        subject = laboratory.subject(kind, knob, seed)
        run, steps = bench.train(recipe), config.training["snapshots"]
        examples, judged = (subject.images, subject.labels, subject.indices), []
        for step in steps:
            found = ask(run.load(step), *examples, check, bench.telling(f"judging step {step}"))
            judged.append({"step": step, **_kept(found)})
        return {**subject.facts, "steps": judged}

    about = {"recipe": recipe, "images": config.images, "check": check}
    return Experiment(f"{title(kind, knob)}, seed {seed}, calibration", about, measure)


def _kept(result: CheckResult) -> dict[str, Any]:
    kept: dict[str, Any] = {"bins": [each for each in result.details["bins"]["mean"]["equal_width"] if each["n"]]}
    kept |= {name: ends(result.metrics.one(name, mode="mean")) for name in MEASURES}
    correct = result.arrays["correct"]
    return {**kept, "right": int(correct.sum())}
