"""A model card of the Hugging Face hub: the ``model-index`` with evaluation results, and the summary in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from isthmus.core.format import interval_text, threat_title
from isthmus.core.types import Metric
from isthmus.report.exports import markdown
from isthmus.report.headlines import CERTIFIED, CLEAN, CORRECTED, ECE, REPORTED, ROBUST, headlines
from isthmus.report.loading import AuditedModel, as_mapping
from isthmus.report.thresholds import Judged

_TYPES = {
    CLEAN: ("accuracy", "accuracy"),
    CORRECTED: ("robust_accuracy", "robust accuracy after all attacks"),
    CERTIFIED: ("certified_accuracy", "certified lower bound on robust accuracy"),
    REPORTED: ("reported_robust_accuracy", "reported robust accuracy"),
    ROBUST: ("robust_accuracy", "robust accuracy"),
    ECE: ("ece", "expected calibration error"),
}
"""The type and the name of each metric; the hub knows "accuracy"."""


def render(models: Sequence[AuditedModel], judged: Sequence[Judged]) -> bytes:
    """The metadata block and the body of a ``README.md``; values are fractions in [0, 1]."""
    index = [
        {"name": model.name, "results": list(_results(model, place, models))} for place, model in enumerate(models)
    ]
    block = yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{block}---\n\n".encode() + markdown.render(models, judged)


def _results(model: AuditedModel, place: int, models: Sequence[AuditedModel]) -> Iterator[dict[str, Any]]:
    record = model.record
    metrics = [
        _metric(title, metric, str(record.settings.get("threat", "")))
        for title, found in headlines(models).items()
        if (metric := found[place]) is not None and metric.value is not None
    ]
    if metrics:
        source = f"isthmus {as_mapping(record.provenance.get('packages')).get('isthmus')}"
        yield {
            "task": {"type": "image-classification", "name": "image classification"},
            "dataset": {
                "type": record.data.partition(" ")[0],
                "name": record.data,
                "args": {"n": record.n, "images": record.settings.get("images", "all"), "sha256": record.data_hash},
            },
            "metrics": metrics,
            "source": {"name": source, "url": "https://isthmus.readthedocs.io"},
        }


def _metric(title: str, metric: Metric, threat: str) -> dict[str, Any]:
    kind, name = _TYPES[title]
    if title in (CERTIFIED, CORRECTED, REPORTED, ROBUST):
        name = f"{name} at {threat_title(threat)}"
    shown = f"{name} ({metric.interval.level:.0%} interval {interval_text(metric)})" if metric.interval else name
    args: dict[str, Any] = {"n": metric.n, **metric.coords}
    if metric.interval is not None:
        args |= {"interval_low": metric.interval.low, "interval_high": metric.interval.high}
    return {"type": kind, "value": metric.value, "name": shown, "args": args}
