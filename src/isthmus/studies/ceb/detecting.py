"""Showing one model foreign images: what a cell of the detection study holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.checks.ood_images import configured, names_of
from isthmus.core.config import Component
from isthmus.core.types import CheckResult
from isthmus.studies.old.image_models import Kind, title
from isthmus.studies.old.laboratory import Laboratory, ask
from isthmus.studies.store import Experiment, ResultStore

if TYPE_CHECKING:
    from isthmus.studies.ceb.detection import Config


def cells(config: Config, bench: ResultStore) -> list[Experiment]:
    """A cell for every model, seed and out-distribution."""
    laboratory = Laboratory(config, bench)
    asked = [configured(out) for out in config.outs]
    outs = list(zip(names_of(asked), asked, strict=True))
    return [_cell(config, bench, laboratory, model, *out) for model in config.every() for out in outs]


def _cell(
    config: Config,
    bench: ResultStore,
    laboratory: Laboratory,
    model: tuple[Kind, float | None, int],
    name: str,
    out: Component,
) -> Experiment:
    """``{"out", "outside": images of it, "scores": {score: {metric: [value, low, high]}}, "success", …}``.

    It is the check ``ood_detection`` that measures; a metric that it could not measure is left out.
    """
    check: dict[str, Any] = {
        "name": "ood_detection",
        "outs": [out.plain(given_only=True)],
        "samples": config.samples,
        "attacked": config.attacked,
        "resamples": config.resamples,
    }

    def measure() -> dict[str, Any]:
        subject = laboratory.subject(*model)
        examples = (subject.images, subject.labels, subject.indices)
        found = ask(subject.modes["mean"], *examples, check, bench.telling(f"showing {name}"))
        return {**subject.facts, "out": name, **_kept(found, name)}

    kind, knob, seed = model
    about = {"recipe": config.recipe(*model), "images": config.images, "check": check}
    return Experiment(f"{title(kind, knob)}, seed {seed}, {name}", about, measure)


def _kept(result: CheckResult, out: str) -> dict[str, Any]:
    scores: dict[str, dict[str, list[float]]] = {}
    for score in result.details["scores"]:
        coords = {key: score[key] for key in ("score", "mode") if key in score}
        prefix = "stochastic_" if coords.get("mode") == "stochastic" else ""
        kept = scores[prefix + coords["score"]] = {}
        for name in ("fpr95_in", "auroc", "aupr_in"):
            metric = result.metrics.get(name, data=out, **coords)
            if metric is not None and metric.value is not None and metric.interval is not None:
                kept[name] = [metric.value, metric.interval.low, metric.interval.high]
    success = result.metrics.get("attack_success", data=out)
    (facts,) = result.details["outs"]
    return {
        "outside": facts["n"],
        "notice": facts["notice"],
        "scores": {score: kept for score, kept in scores.items() if kept},
        "left_out": result.details["left_out"],
        "success": None if success is None else [round((success.value or 0.0) * success.n), success.n],
    }
