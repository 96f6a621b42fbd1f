"""A CycloneDX 1.6 bill of materials: the model with its model card, whose performance metrics have intervals."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from isthmus.core.types import Metric
from isthmus.report.exports.outcomes import outcomes
from isthmus.report.exports.sarif import DOCUMENTATION
from isthmus.report.loading import AuditedModel, as_mapping
from isthmus.report.thresholds import Judged


def render(models: Sequence[AuditedModel], judged: Sequence[Judged]) -> bytes:
    """A component for each model and each data set.

    The hashes of an audit are those of parameters and of decoded images, not of files. They are properties therefore,
    whose names start with ``isthmus:``.
    """
    data = {model.record.data_hash: model for model in models}
    content: dict[str, Any] = {
        "metadata": {
            "tools": {
                "components": [
                    {
                        "type": "application",
                        "name": "isthmus",
                        "version": version("isthmus"),
                        "externalReferences": [{"type": "documentation", "url": DOCUMENTATION}],
                    }
                ]
            }
        },
        "components": [*map(_model, models), *map(_data, data.values())],
    }
    if dates := [str(model.record.provenance["date"]) for model in models if "date" in model.record.provenance]:
        content["metadata"]["timestamp"] = max(dates)
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))  # the same audits, the same number
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{number}",
        "version": 1,
        **content,
    }
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def _model(model: AuditedModel) -> dict[str, Any]:
    record = model.record
    metrics = [metric for result in model.results.values() for metric in result.metrics if metric.value is not None]
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model/{model.name}/{record.model_hash}",
        "name": model.name,
        "modelCard": {
            "modelParameters": {"task": "image classification"},
            "quantitativeAnalysis": {"performanceMetrics": [_metric(metric) for metric in metrics]},
            "considerations": {
                "technicalLimitations": [
                    "A robust accuracy is an upper bound found by attacks, not a guarantee.",
                    *(f"{o.level}: {o.name}: {o.reason}" for o in outcomes(model, ()) if o.level != "passed"),
                ]
            },
        },
        "properties": _properties(
            model_hash=record.model_hash,
            data=f"data/{record.data_hash}",
            n=record.n,
            seed=record.seed,
            threat=record.settings.get("threat", ""),
            version=as_mapping(record.provenance.get("packages")).get("isthmus"),
            command=record.provenance.get("command", ""),
        ),
    }


def _metric(metric: Metric) -> dict[str, Any]:
    where = ", ".join(f"{key}={value}" for key, value in metric.coords.items())
    found: dict[str, Any] = {"type": f"{metric.name} ({metric.unit})", "value": str(metric.value)}
    if where or metric.n:
        found["slice"] = ", ".join(filter(None, [where, f"n={metric.n}" if metric.n else ""]))
    if metric.interval is not None:
        found["confidenceInterval"] = {
            "lowerBound": str(metric.interval.low),
            "upperBound": str(metric.interval.high),
        }
    return found


def _data(model: AuditedModel) -> dict[str, Any]:
    record = model.record
    return {
        "type": "data",
        "bom-ref": f"data/{record.data_hash}",
        "name": record.data,
        "data": [{"type": "dataset", "name": record.data}],
        "properties": _properties(
            data_hash=record.data_hash, n=record.n, classes=record.num_classes, images=record.settings.get("images", "")
        ),
    }


def _properties(**facts: object) -> list[dict[str, str]]:
    return [{"name": f"isthmus:{name}", "value": str(value)} for name, value in facts.items()]
