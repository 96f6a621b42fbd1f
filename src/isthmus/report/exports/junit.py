"""JUnit XML, which CI servers show as tests: a suite for each model, a case for each check and each threshold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree

from isthmus.core.errors import printable
from isthmus.report.exports.outcomes import Outcome, outcomes
from isthmus.report.loading import AuditedModel
from isthmus.report.thresholds import Judged

_TAGS = {"failed": "failure", "error": "error", "skipped": "skipped"}


def render(models: Sequence[AuditedModel], judged: Sequence[Judged]) -> bytes:
    """A failed check or missed threshold is a failure; a warning passes, with its reason as output."""
    root = ElementTree.Element("testsuites", name="isthmus")
    for model in models:
        found = list(outcomes(model, judged))
        tally = Counter(outcome.level for outcome in found)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=printable(model.name),
            tests=str(len(found)),
            failures=str(tally["failed"]),
            errors=str(tally["error"]),
            skipped=str(tally["skipped"]),
            time=f"{sum(outcome.seconds for outcome in found):.3f}",
            timestamp=printable(str(model.record.provenance.get("date", ""))).partition("+")[0],
        )
        for outcome in found:
            _case(suite, model.name, outcome)
    ElementTree.indent(root)
    text: str = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()


def _case(suite: ElementTree.Element, model: str, outcome: Outcome) -> None:
    name, reason = printable(outcome.name), printable(outcome.reason)  # XML has no control characters
    case = ElementTree.SubElement(
        suite, "testcase", classname=f"isthmus.{printable(model)}", name=name, time=f"{outcome.seconds:.3f}"
    )
    if tag := _TAGS.get(outcome.level):
        ElementTree.SubElement(case, tag, type=outcome.level, message=reason).text = reason
    else:
        prefix = "warning: " if outcome.level == "warning" else ""
        ElementTree.SubElement(case, "system-out").text = prefix + reason
