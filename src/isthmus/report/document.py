"""Audits as one JSON document, for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isthmus.report import comparison, terminal
from isthmus.report.loading import AuditedModel

FORMAT = 1
"""Version of the document. It is increased whenever a key changes its meaning."""


def document(models: Sequence[AuditedModel], page: Path | None = None) -> dict[str, Any]:
    """Verdicts, comparisons, warnings and all metrics of audited classifiers, as JSON-able data.

    Keys:
        * ``format``: :data:`FORMAT`.
        * ``page``: path of the page; null if none was drawn.
        * ``models``: of each, ``model``, ``folder``, ``data``, ``n``, ``seed``, ``settings`` and ``cautions`` of the
          audit.
        * ``verdicts``: of each with a diagnosis, ``model``, ``status``, ``threat``, ``mode``, ``reported`` and
          ``corrected`` (metrics) and ``reason``.
        * ``comparison``: the ``sentence`` of the terminal, and ``pairs`` with ``first``, ``second`` and their
          ``difference`` in robust accuracy, a metric.
        * ``warnings``: ``status``, ``model``, ``check`` (null for a collapsed training or an unfinished audit) and
          ``reason``; skipped checks too.
        * ``metrics``: one row for each number: ``model``, ``check``, ``name``, ``coords``, ``value``, ``unit``, ``n``,
          ``interval`` (``low``, ``high``, ``level``, ``method``) or null, and ``note``.
    """
    return {
        "format": FORMAT,
        "page": None if page is None else str(page),
        "models": [
            {"model": model.name, "folder": model.folder}
            | {key: model.record.plain()[key] for key in ("data", "n", "seed", "settings", "cautions")}
            for model in models
        ],
        "verdicts": [verdict for model in models for verdict in _verdict(model)],
        "comparison": {
            "sentence": comparison.sentence(models),
            "pairs": [
                {"first": pair.first, "second": pair.second, "difference": pair.difference.plain()}
                for pair in comparison.pairs(models)
            ],
        },
        "warnings": [
            {"status": remark.word, "model": remark.model, "check": remark.check or None, "reason": remark.reason}
            for remark in terminal.remarks_of(models)
        ],
        "metrics": [
            {"model": model.name, "check": check} | metric.plain()
            for model in models
            for check, result in model.results.items()
            for metric in result.metrics
        ],
    }


def _verdict(model: AuditedModel) -> list[dict[str, Any]]:
    """The verdict on a classifier; none without a diagnosis."""
    result = model.results.get("diagnosis")
    if result is None or "verdict" not in result.details:
        return []
    return [
        {
            "model": model.name,
            "status": result.details["verdict"]["status"],
            "threat": result.details["threat"],
            "mode": result.details["mode"],
            "reported": comparison.verdict_metric(result.details, "reported").plain(),
            "corrected": comparison.verdict_metric(result.details, "corrected").plain(),
            "reason": result.details["verdict"]["reason"],
        }
    ]
