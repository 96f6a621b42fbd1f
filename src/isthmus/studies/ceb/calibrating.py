"""Judging the confidence of one model after each kept step: what a cell of the calibration study holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.auditing import audit
from isthmus.errors import ConfigError
from isthmus.studies.image_models import Kind, title
from isthmus.studies.laboratory import Laboratory
from isthmus.studies.workbench import Cell, Workbench
from isthmus.types import CheckResult

if TYPE_CHECKING:
    from isthmus.studies.ceb.calibration import Config

MEASURES = ("ece", "overconfidence", "nll", "brier")


def cells(config: Config, bench: Workbench) -> list[Cell]:
    """A cell for every model and seed.

    Raises:
        ConfigError: no step is kept.
    """
    if not config.training.get("snapshots"):
        raise ConfigError("This study judges models after the steps in training.snapshots; give some.")
    laboratory = Laboratory(config, bench)
    return [_cell(config, bench, laboratory, *model) for model in config.every()]


def _cell(config: Config, bench: Workbench, laboratory: Laboratory, kind: Kind, knob: float | None, seed: int) -> Cell:
    """``{"steps": [{"step", "accuracy", "bins": those that are not empty, "ece": [value, low, high], …}, …], …}``.

    It is the check ``calibration`` that measures, in mean mode.
    """
    recipe = config.recipe(kind, knob, seed)
    check = {"name": "calibration", "bins": config.bins, "resamples": config.resamples}

    def measure() -> dict[str, Any]:
        subject = laboratory.subject(kind, knob, seed)
        run, steps = bench.train(recipe), config.training["snapshots"]
        judged = []
        for number, step in enumerate(steps):
            bench.report(f"judging step {step}", number, len(steps))
            model = run.load(step).to(subject.images.device)
            found = audit(
                model, subject.images, subject.labels, "linf:0.1", [check], indices=subject.indices, debug=True
            )
            judged.append({"step": step, **_kept(found.results["calibration"])})
        return {**subject.facts, "steps": judged}

    about = {"recipe": recipe, "images": config.images, "check": check}
    return Cell(f"{title(kind, knob)}, seed {seed}, calibration", about, measure)


def _kept(result: CheckResult) -> dict[str, Any]:
    kept: dict[str, Any] = {"bins": [each for each in result.details["bins"]["mean"]["equal_width"] if each["n"]]}
    for name in MEASURES:
        metric = result.metrics[name]
        ends = metric.interval
        kept[name] = [metric.value, *((ends.low, ends.high) if ends else (metric.value, metric.value))]
    correct = result.arrays["correct"]
    return {**kept, "right": int(correct.sum())}
