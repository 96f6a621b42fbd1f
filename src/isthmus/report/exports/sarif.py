"""SARIF 2.1.0, which code hosts show as findings: a result for each failed check, warning and missed threshold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from isthmus.core import files
from isthmus.core.errors import printable
from isthmus.report import scorecard
from isthmus.report.exports.outcomes import Outcome, outcomes
from isthmus.report.loading import AuditedModel
from isthmus.report.thresholds import Judged

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
DOCUMENTATION = "https://isthmus.readthedocs.io"
_LEVELS = {"failed": "error", "warning": "warning"}


def render(models: Sequence[AuditedModel], judged: Sequence[Judged]) -> bytes:
    """One run of the tool with all models. A check that ended with an error is a notification, not a result."""
    found = [(model, outcome) for model in models for outcome in outcomes(model, judged)]
    rules = list(dict.fromkeys(outcome.name for _, outcome in found if outcome.level in _LEVELS))
    errors = [(model, outcome) for model, outcome in found if outcome.level == "error"]
    run = {
        "tool": {
            "driver": {
                "name": "isthmus",
                "version": version("isthmus"),
                "informationUri": DOCUMENTATION,
                "rules": [_rule(name) for name in rules],
            }
        },
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": not errors,
                "toolExecutionNotifications": [
                    {"level": "error", "message": {"text": f"{outcome.name} of {model.name}: {outcome.reason}"}}
                    for model, outcome in errors
                ],
            }
        ],
        "results": [
            _result(model, outcome, rules.index(outcome.name)) for model, outcome in found if outcome.level in _LEVELS
        ],
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return (json.dumps(log, indent=1) + "\n").encode()


def _rule(name: str) -> dict[str, Any]:
    known = scorecard.QUESTIONS.get(name)
    if name.startswith("fail-under-"):
        text, page = f"Is the {name.removeprefix('fail-under-')} accuracy above its threshold?", "in-ci.html#thresholds"
    elif name == "classifier":
        text, page = "Is the classifier better than a constant prediction?", "errors.html"
    else:
        text, page = known.text if known else f"The check {name}", f"checks.html#{name.replace('_', '-')}"
    return {"id": f"isthmus/{name}", "shortDescription": {"text": text}, "helpUri": f"{DOCUMENTATION}/{page}"}


def _result(model: AuditedModel, outcome: Outcome, rule: int) -> dict[str, Any]:
    """A result; its place is the file with the check's stored result, relative to the folder that holds the run."""
    location: dict[str, Any] = {"logicalLocations": [{"fullyQualifiedName": f"{model.name}/{outcome.name}"}]}
    if model.audit:
        uri = f"{model.audit}/{outcome.check}.json"
        location["physicalLocation"] = {"artifactLocation": {"uri": quote(uri)}}
    identity = files.sha256(json.dumps([model.name, outcome.name]).encode())
    return {
        "ruleId": f"isthmus/{outcome.name}",
        "ruleIndex": rule,
        "level": _LEVELS[outcome.level],
        "message": {"text": f"{model.name}: {printable(outcome.reason)}"},
        "locations": [location],
        "partialFingerprints": {"modelAndRule/v1": identity},
    }
