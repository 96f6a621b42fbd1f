"""Provenance: everything that is needed to reproduce the numbers of one classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from isthmus.report.loading import AuditedModel, as_mapping, training_provenance

_SHORT = 12  # characters of a hash that are enough to recognise it
_LONG_LIST = 12
_SHOWN_ELSEWHERE = {"recipe", "given", "provenance", "starts", "data"}


@dataclass(frozen=True)
class Provenance:
    """One classifier's entry under "Provenance": a line, facts by name, and settings as YAML by title."""

    name: str
    line: str
    facts: list[tuple[str, str]]
    settings: list[tuple[str, str]]


def provenances(models: Sequence[AuditedModel]) -> list[Provenance]:
    """How each classifier was trained and audited; what several have in common is in a first entry about all."""
    facts = [_facts(model) for model in models]
    settings = [_settings(model) for model in models]
    if len(models) < 2:
        return [
            _entry(model.name, _line(model), own, chosen)
            for model, own, chosen in zip(models, facts, settings, strict=True)
        ]
    shared = [fact for fact in facts[0] if all(fact in own for own in facts)]
    common = _common(settings)
    return [
        _entry("All classifiers", "what they have in common", shared, common),
        *(
            _entry(model.name, _line(model), [fact for fact in own if fact not in shared], _without(chosen, common))
            for model, own, chosen in zip(models, facts, settings, strict=True)
        ),
    ]


def _entry(name: str, line: str, facts: list[tuple[str, str]], settings: Mapping[str, Any]) -> Provenance:
    return Provenance(name, line, facts, [(title, _yaml(content)) for title, content in settings.items() if content])


def _facts(model: AuditedModel) -> list[tuple[str, str]]:
    record, run = model.record, model.run
    facts = [("Model", record.model), ("Model hash", record.model_hash)]
    if model.recipe:
        facts += [("Trained with seed", _text(model.recipe.get("seed")))]
        facts += [*_origin("Trained", training_provenance(run)), ("Training data", _text(run.get("data")))]
    facts += [
        ("Audit data", f"{record.data}, n = {record.n:,}, {record.num_classes} classes"),
        ("Audit data hash", record.data_hash),
        ("Audited with seed", str(record.seed)),
        *_origin("Audited", record.provenance),
    ]
    rest = {key: value for key, value in run.items() if key not in _SHOWN_ELSEWHERE}
    facts += [(key.replace("_", " ").capitalize(), _text(value)) for key, value in rest.items()]
    return facts + _older_results(model)


def _settings(model: AuditedModel) -> dict[str, Mapping[str, Any]]:
    options = {check: _unnamed(result.options) for check, result in model.results.items() if result.options}
    return {"Recipe": model.recipe or {}, "Audit settings": model.record.settings, "Options of checks": options}


def _common(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that are the same in all of several nested mappings."""
    first, *others = configs
    found = {}
    for key, value in first.items():
        if not all(key in other for other in others):
            continue
        values = [value, *(other[key] for other in others)]
        if all(each == value for each in values):
            found[key] = value
        elif all(isinstance(each, Mapping) for each in values) and (inner := _common(values)):
            found[key] = inner
    return found


def _without(config: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not among the common ones."""
    found = {}
    for key, value in config.items():
        if key not in common:
            found[key] = value
        elif value != common[key]:
            found[key] = _without(value, common[key])
    return found


def _unnamed(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != "name"}


def _older_results(model: AuditedModel) -> list[tuple[str, str]]:
    """Commit and date of results of another commit than the audit's last ones."""
    last = model.record.provenance.get("commit")
    made = {check: result.provenance for check, result in model.results.items() if result.provenance}
    return [
        (f"{check.replace('_', ' ').capitalize()} made at", f"{_text(facts.get('commit'))}, {_text(facts.get('date'))}")
        for check, facts in made.items()
        if facts.get("commit") != last
    ]


def _line(model: AuditedModel) -> str:
    """A run in one line: objective, backbone, seed, n, and the start of the model's hash."""
    recipe = model.recipe or {}
    backbone = as_mapping(recipe.get("model")).get("backbone")
    parts = [_component(part) for part in (recipe.get("objective"), backbone) if part]
    parts += [f"seed {recipe['seed']}"] if "seed" in recipe else []
    return " · ".join([*parts, f"n = {model.record.n:,}", f"model {model.record.model_hash[:_SHORT]}"])


def _component(config: object) -> str:
    """A component by its name and numeric options: "ceb (rho 2.0)"."""
    if not isinstance(config, Mapping):
        return str(config)
    numbers = [f"{key} {value}" for key, value in config.items() if type(value) in (int, float)]
    return f"{config.get('name', '')} ({', '.join(numbers)})" if numbers else str(config.get("name", ""))


def _origin(done: str, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Date, commit, versions and machine; "not recorded" if missing."""
    packages = as_mapping(facts.get("packages"))
    versions = [f"{name} {version or 'not installed'}" for name, version in packages.items()]
    python = [f"python {facts['python']}"] if "python" in facts else []
    command = [(f"{done} by command", str(facts["command"]))] if "command" in facts else []
    return [
        *command,
        (f"{done} on", _text(facts.get("date"))),
        (f"{done} at commit", _text(facts.get("commit"))),
        (f"{done} with", ", ".join([*python, *versions]) or _text(None)),
        (f"{done} by machine", _text(facts.get("machine"))),
    ]


def _text(value: object) -> str:
    """Any JSON value in a line; long lists by their length."""
    if value is None or value == {}:
        return "not recorded"
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return " ".join(_text(inner) for inner in value) if len(value) <= _LONG_LIST else f"{len(value)} values"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=100).rstrip()
