"""A test report in Markdown, in the order of clause 7.8 of ISO/IEC 17025: item, method, results, decision rule."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isthmus.core import files
from isthmus.core.format import in_words, interval_text, level_text, threat_title, value_text
from isthmus.core.types import Metric
from isthmus.report.exports.markdown import escaped
from isthmus.report.exports.outcomes import outcomes
from isthmus.report.headlines import diagnosed, headlines
from isthmus.report.loading import AuditedModel, as_mapping
from isthmus.report.thresholds import Judged

STATEMENT = (
    "This report follows the layout of a test report under ISO/IEC 17025:2017, clause 7.8. It was written by a program "
    "and claims no accreditation, no competence of a laboratory and no conformity with that standard. Its results "
    "relate only to the item, the images and the conditions named in it."
)


def render(models: Sequence[AuditedModel], judged: Sequence[Judged]) -> bytes:
    """One report with a part for each model."""
    parts = ["\n".join(_part(model, [each for each in judged if each.model == model.name])) for model in models]
    return ("\n\n---\n\n".join(parts) + "\n").encode()


def _part(model: AuditedModel, judged: Sequence[Judged]) -> Iterator[str]:
    yield f"# Test report: {escaped(model.name)}"
    yield from ("", STATEMENT)
    sections = {
        "1. Identification": _identification(model),
        "2. Item under test": _item(model),
        "3. Test images": _images(model),
        "4. Method": _method(model),
        "5. Results": _results(model),
        "6. Decision rule and statements": _decision(model, judged),
        "7. Deviations, additions and exclusions": _deviations(model),
        "8. To be completed by the issuer": _open(),
    }
    for title, lines in sections.items():
        yield from ("", f"## {title}", "", *lines)


def _facts(facts: Mapping[str, object]) -> Iterator[str]:
    yield from ("| | |", "|---|---|")
    yield from (f"| {name} | {escaped(str(value))} |" for name, value in facts.items())


def _identification(model: AuditedModel) -> Iterator[str]:
    content = [model.record.plain(), {name: result.plain() for name, result in model.results.items()}]
    digest = files.sha256(json.dumps(content, sort_keys=True).encode())
    made = model.record.provenance
    yield from _facts({"Report (SHA-256 of record and results)": digest, "Date of test": made.get("date", "unknown")})


def _item(model: AuditedModel) -> Iterator[str]:
    record = model.record
    facts = {
        "Item": f"image classifier {model.name}, {record.num_classes} classes",
        "SHA-256 of parameters and buffers": record.model_hash,
        "SHA-256 of its layers as printed": record.structure_hash or "not recorded",
    }
    yield from _facts(facts)


def _images(model: AuditedModel) -> Iterator[str]:
    record = model.record
    chosen = record.settings.get("images", "all")
    facts = {"Data": record.data, "Images": f"n = {record.n:,}; {chosen}"}
    yield from _facts(facts | {"SHA-256 of images, labels and positions": record.data_hash})


def _method(model: AuditedModel) -> Iterator[str]:
    record, made = model.record, model.record.provenance
    packages = as_mapping(made.get("packages"))
    facts: dict[str, object] = {
        "Program": f"isthmus {packages.get('isthmus')}, commit {made.get('commit') or 'unknown'}",
        "Command": made.get("command") or "isthmus.audit in Python",
        "Threat model": threat_title(str(record.settings.get("threat", ""))) + ", images in [0, 1]",
        "Seed": record.seed,
        "Further settings": _json({key: value for key, value in record.settings.items() if key != "threat"}),
        "Software": ", ".join(f"{name} {version}" for name, version in packages.items() if version),
        "Machine": _json(made.get("machine")),
    }
    for check, result in model.results.items():
        given = {key: value for key, value in result.options.items() if key != "name" and value is not None}
        facts[f"Options of {check}"] = _json(given) if given else "those of the budget"
    yield from _facts(facts)


def _results(model: AuditedModel) -> Iterator[str]:
    yield "Main results:"
    yield ""
    yield from (
        f"* {title}: {escaped(in_words(metric))}"
        for title, (metric,) in headlines([model]).items()
        if metric is not None
    )
    yield from (
        "",
        "All results. The uncertainty is a confidence interval over images like the tested ones; it does not",
    )
    yield from ("cover other images, nor attacks that were not tried.", "")
    yield from ("| check | quantity | conditions | value | interval | n |", "|---|---|---|---|---|---|")
    for check, result in model.results.items():
        yield from (_row(check, metric) for metric in result.metrics)


def _row(check: str, metric: Metric) -> str:
    where = ", ".join(f"{key} {value}" for key, value in metric.coords.items())
    interval = metric.interval
    made = f"{level_text(interval)} {interval_text(metric)}, {interval.method}" if interval else "none"
    cells = (check, metric.name, where, value_text(metric), made, f"{metric.n:,}")
    return f"| {' | '.join(map(escaped, cells))} |"


def _decision(model: AuditedModel, judged: Sequence[Judged]) -> Iterator[str]:
    result = diagnosed(model)
    yield (
        "Verdict on the robust accuracy: overstated if the reported accuracy is significantly higher (95%) than the "
        "corrected one; broken if the corrected one is also no better than chance; undecided if evidence is missing; "
        "holds otherwise."
    )
    yield ""
    verdict = "not given" if result is None else f"**{result.details['verdict']['status']}**. {escaped(result.reason)}"
    yield f"* Verdict: {verdict}"
    if judged:
        yield ""
        yield (
            "Thresholds: the measured value is compared with the threshold (simple acceptance); the interval is stated "
            "and not used."
        )
        yield ""
        yield from (f"* {'Missed' if each.missed else 'Reached'}: {escaped(str(each))}" for each in judged)


def _deviations(model: AuditedModel) -> Iterator[str]:
    found = [f"* {o.level}: {o.name}: {escaped(o.reason)}" for o in outcomes(model, ()) if o.level != "passed"]
    found += [f"* {caution.level}: {escaped(caution.text)}" for caution in model.record.cautions]
    result = diagnosed(model)
    untried = [] if result is None else result.details["verdict"].get("not_tried", [])
    found += [f"* not tried: {escaped(str(each))}" for each in untried]
    yield from found or ["* none recorded"]


def _open() -> Iterator[str]:
    for name in ("Laboratory and place of test", "Customer", "Date of issue", "Person who authorises the report"):
        yield f"* {name}:"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
