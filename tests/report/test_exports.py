"""Audits in the formats of CI servers: every outcome is there, and nothing that a name or reason holds breaks them."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest

from isthmus import metrics
from isthmus.cli import export
from isthmus.core.errors import ConfigError
from isthmus.core.types import Caution, CheckResult, Metrics, Status
from isthmus.report import thresholds
from isthmus.report.exports import formats
from isthmus.report.loading import AuditedModel, load
from tests.report.verdict_standins import diagnosis

SCHEMAS = Path(__file__).parent / "schemas"
HOSTILE = 'a|b`c`<script>&"\x00\x1b[31m\n# d'


def schema(name: str) -> Any:
    return json.loads(gzip.decompress((SCHEMAS / f"{name}.gz").read_bytes()))


@pytest.fixture
def model(runs: list[Path]) -> AuditedModel:
    """A classifier with a result of every status."""
    base = load(runs[1])
    others = [
        CheckResult(check=status.value, status=status, reason=f"{HOSTILE} {status}", seconds=1.5) for status in Status
    ]
    clean = metrics.accuracy(np.arange(360) < 350).named("accuracy", mode="mean")
    accuracy = base.results["accuracy"].model_copy(update={"metrics": Metrics([clean])})
    results = {"diagnosis": diagnosis("overstated", 92, 51), "accuracy": accuracy}
    record = base.record.model_copy(update={"checks": ("diagnosis", "absent")})
    return replace(base, name=HOSTILE, record=record, results=results | {each.check: each for each in others})


@pytest.fixture
def judged(model: AuditedModel) -> list[thresholds.Judged]:
    return thresholds.judged([model], {"robust": 0.6, "clean": 0.9})


def test_the_command_names_every_format() -> None:
    assert list(export.FORMATS) == list(formats.FORMATS)
    assert len({each.file for each in formats.FORMATS.values()}) == len(formats.FORMATS)


def test_an_unknown_format_writes_nothing(model: AuditedModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no format 'junitt'. Did you mean 'junit'"):
        formats.write(["sarif", "junitt"], [model], tmp_path)
    assert not list(tmp_path.iterdir())


def test_junit_has_a_case_for_each_check_and_threshold(model, judged) -> None:
    (suite,) = ElementTree.fromstring(formats.render("junit", [model], judged))
    tags = {case.get("name"): next(iter(case)).tag for case in suite}
    assert tags == {
        "diagnosis": "failure",
        "accuracy": "system-out",
        "measured": "system-out",
        "pass": "system-out",
        "warn": "system-out",
        "fail": "failure",
        "skipped": "skipped",
        "error": "error",
        "absent": "error",
        "fail-under-robust": "failure",
        "fail-under-clean": "system-out",
    }
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "11",
        "failures": "3",
        "errors": "2",
        "skipped": "1",
    }
    assert float(suite.get("time", 0)) == 6 * 1.5
    missed = suite.find("./testcase[@name='fail-under-robust']/failure")
    assert "51.0%" in missed.get("message")
    assert "60.0% is required" in missed.get("message")


@pytest.mark.parametrize(("status", "tag"), [("holds", "system-out"), ("undecided", "failure"), ("broken", "failure")])
def test_a_verdict_with_an_exit_code_fails_its_case(runs, status, tag) -> None:
    base = replace(load(runs[0]), results={"diagnosis": diagnosis(status, 60, 58)})
    (suite,) = ElementTree.fromstring(formats.render("junit", [base]))
    assert next(iter(suite.find("./testcase[@name='diagnosis']"))).tag == tag


def test_a_classifier_at_chance_fails(runs) -> None:
    base = load(runs[0])
    caution = Caution(about="chance", level="error", text="The labels are in another order.")
    record = base.record.model_copy(update={"cautions": (caution,)})
    (suite,) = ElementTree.fromstring(formats.render("junit", [replace(base, record=record)]))
    assert "another order" in suite.find("./testcase[@name='classifier']/failure").text


def test_sarif_satisfies_its_schema_and_has_what_went_wrong(model, judged) -> None:
    log = json.loads(formats.render("sarif", [model], judged))
    jsonschema.Draft4Validator(schema("sarif-schema-2.1.0.json")).validate(log)
    (run,) = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    levels = {result["ruleId"]: result["level"] for result in run["results"]}
    assert levels == {
        "isthmus/diagnosis": "error",
        "isthmus/fail": "error",
        "isthmus/warn": "warning",
        "isthmus/fail-under-robust": "error",
    }
    assert [rules[result["ruleIndex"]] for result in run["results"]] == [result["ruleId"] for result in run["results"]]
    places = [result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in run["results"]]
    assert places[0] == f"{model.folder}/audit/diagnosis.json"
    (invocation,) = run["invocations"]
    assert not invocation["executionSuccessful"]
    errors = [each["message"]["text"].partition(" of ")[0] for each in invocation["toolExecutionNotifications"]]
    assert sorted(errors) == ["absent", "error"]


def test_markdown_has_the_numbers_and_no_markup_of_names(model, judged) -> None:
    text = formats.render("markdown", [model], judged).decode()
    row = next(line for line in text.splitlines() if "overstated" in line)
    assert "51.0% (95% interval 41.3–60.6, n = 100)" in row
    assert "92.0%" in row
    assert "**overstated**" in row
    assert "- **missed**: robust accuracy of" in text
    assert "- reached: clean accuracy of" in text
    assert "<script>" not in text.replace("\\<", "")
    cells = row.replace("\\|", "").strip("|").split("|")
    assert len(cells) == len(text.splitlines()[2].strip("|").split("|")) == 6
    assert "\x1b" not in text


def test_the_numbers_are_those_of_the_document(model) -> None:
    found = json.loads(formats.render("json", [model]))
    assert found["page"] is None
    assert found["verdicts"][0]["corrected"]["value"] == 0.51
