"""Sentences with which a paper cites a robust accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.core.format import in_words, interval_text, listed, purpose_title, size, threat_title, value_text
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

    Classifiers that share data, threat, n, version, seed and suite share a sentence.
    """
    cited = [model for model in models if _verdict(model)]
    if len(cited) == 1 or len({_conditions(model) for model in cited}) != 1:
        return [f"{citation(model)} {_means([model], _source(model))}" for model in cited]
    endings = {_source(model).partition("/")[2] for model in cited}
    source = f"{endings.pop()} of each run folder" if len(endings) == 1 and "" not in endings else ""
    corrected = [_corrected(model) for model in cited]
    each = [
        f"{value_text(metric)} ({interval_text(metric)}) for {_named(model)}"
        for model, metric in zip(cited, corrected, strict=True)
    ]
    return [
        f"The robust accuracy {_place(cited[0])} is at most {listed(each)} (95%\u00a0intervals, "
        f"{size(corrected[0].n)}), {_measured(cited[0])}. {_means(cited, source)}"
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
    return _place(model), _measured(model), _corrected(model).n, _suite(model)


def _suite(model: AuditedModel) -> str:
    given = model.results["diagnosis"].options.get("ensemble")
    return str(given or _SUITES.get(str(model.record.settings.get("budget", "")), ""))


def _means(models: Sequence[AuditedModel], source: str) -> str:
    """The attacks of the diagnosis, and the file of adversarial examples."""
    suite = _suite(models[0])
    further: dict[str, list[str]] = {}
    for model in models:
        result = model.results["diagnosis"]
        names = result.details["modes"][common.status_mode(result)].get("follow_ups", {})
        if names:
            attacks = listed([purpose_title(name) for name in names])
            further.setdefault(attacks, []).append(model.name)
    parts = [f"Attacks: {listed(['PGD', *([f'the suite {suite}'] if suite else [])])}"]
    parts += [f"{attacks}{f' for {listed(names)}' if len(models) > 1 else ''}" for attacks, names in further.items()]
    return "; ".join([*parts, *([f"adversarial examples: {source}"] if source else [])]) + "."
