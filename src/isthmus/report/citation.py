"""Sentences with which a paper cites a robust accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.core.format import in_words, interval_text, listed, size, threat_title, value_text
from isthmus.core.types import Metric
from isthmus.report import comparison
from isthmus.report.loading import AuditedModel, as_mapping
from isthmus.report.sections import common

_SUITES = {"quick": "fast", "full": "standard"}


def citation(model: AuditedModel) -> str:
    """A classifier's robust accuracy with threat, data, interval, n, version and seed, and its verdict.

    The audit must have a verdict.
    """
    verdict = _verdict(model)
    reported = Metric.model_validate(verdict["reported_metric"])
    return (
        f"The robust accuracy of {_named(model)} {_place(model)} is at most {in_words(_corrected(model))}, "
        f"{_measured(model)}. Verdict on the reported {in_words(reported)}: {verdict['status']}."
    )


def citations(models: Sequence[AuditedModel]) -> list[str]:
    """The sentences of a page, with the attacks and the files of adversarial examples.

    Classifiers that share data, threat, n, version, seed and attacks share a sentence.
    """
    cited = [model for model in models if _verdict(model)]
    if len(cited) == 1 or len({_conditions(model) for model in cited}) != 1:
        return [f"{citation(model)} {_means(model, _source(model))}" for model in cited]
    endings = {_source(model).partition("/")[2] for model in cited}
    source = f"{endings.pop()} of each run folder" if len(endings) == 1 and "" not in endings else ""
    corrected = [_corrected(model) for model in cited]
    each = [
        f"{value_text(metric)} ({interval_text(metric)}) for {_named(model)}"
        for model, metric in zip(cited, corrected, strict=True)
    ]
    return [
        f"The robust accuracy {_place(cited[0])} is at most {listed(each)} (95%\u00a0intervals, "
        f"{size(corrected[0].n)}), {_measured(cited[0])}. {_means(cited[0], source)}"
    ]


def _verdict(model: AuditedModel) -> Mapping[str, Any]:
    """The stored verdict; empty without one."""
    result = model.results.get("diagnosis")
    return {} if result is None else as_mapping(result.details.get("verdict"))


def _corrected(model: AuditedModel) -> Metric:
    result = model.results["diagnosis"]
    return result.metrics.one("corrected_accuracy", mode=common.status_mode(result), **common.threat(result))


def _source(model: AuditedModel) -> str:
    """The file of adversarial examples, which are those of the mean mode."""
    return model.adversarial if common.status_mode(model.results["diagnosis"]) == common.MEAN else ""


def _named(model: AuditedModel) -> str:
    return " in ".join(filter(None, (model.name, comparison.mode_words(model))))


def _place(model: AuditedModel) -> str:
    return f"on {model.record.data} at {threat_title(str(model.record.settings['threat']))}"


def _measured(model: AuditedModel) -> str:
    version = as_mapping(model.record.provenance.get("packages")).get("isthmus")
    return f"measured with isthmus {version}, seed {model.record.seed}"


def _conditions(model: AuditedModel) -> tuple[str, str, int, str]:
    return _place(model), _measured(model), _corrected(model).n, _means(model, "")


def _means(model: AuditedModel, source: str) -> str:
    """The attacks of the diagnosis, and the file of adversarial examples."""
    result = model.results["diagnosis"]
    suite = result.options.get("ensemble") or _SUITES.get(str(model.record.settings.get("budget", "")), "")
    follow_ups = result.details["modes"][common.status_mode(result)].get("follow_ups", {})
    attacks = ["PGD", *([f"the suite {suite}"] if suite else [])]
    if follow_ups:
        attacks.append(f"the follow-up attacks {listed([name.replace('_', ' ') for name in follow_ups])}")
    return f"Attacks: {listed(attacks)}{f'; adversarial examples: {source}' if source else ''}."
