"""Audits in the formats of CI servers: every outcome is there, and nothing that a name or reason holds breaks them."""

from __future__ import annotations

import gzip
import json
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import huggingface_hub
import jsonschema
import numpy as np
import pyarrow.parquet
import pytest
from referencing import Registry
from referencing.jsonschema import DRAFT7

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


def test_cyclonedx_satisfies_its_schema_and_has_the_bounds_of_every_interval(model) -> None:
    bom = json.loads(formats.render("cyclonedx", [model]))
    found = [(uri, schema(uri)) for uri in ("spdx.schema.json", "jsf-0.82.schema.json", "bom-1.6.schema.json")]
    resources = [(f"http://cyclonedx.org/schema/{uri}", DRAFT7.create_resource(each)) for uri, each in found]
    jsonschema.Draft7Validator(found[-1][1], registry=Registry().with_resources(resources)).validate(bom)
    component, data = bom["components"]
    measured = component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    stored = [metric for result in model.results.values() for metric in result.metrics]
    assert [float(each["value"]) for each in measured] == [metric.value for metric in stored]
    for each, metric in zip(measured, stored, strict=True):
        bounds = each["confidenceInterval"]
        assert (float(bounds["lowerBound"]), float(bounds["upperBound"])) == (metric.interval.low, metric.interval.high)
    assert {"name": "isthmus:model_hash", "value": model.record.model_hash} in component["properties"]
    assert data["type"] == "data"


def test_the_model_index_is_read_by_the_hubs_own_library(model, judged, tmp_path: Path) -> None:
    sound = replace(model, name="mine")
    (path,) = formats.write(["huggingface"], [sound], tmp_path, judged)
    card = huggingface_hub.ModelCard.load(path)
    results = {each.metric_type: each for each in card.data.eval_results}
    assert card.data.model_name == "mine"
    assert results["robust_accuracy"].metric_value == 0.51
    assert results["robust_accuracy"].metric_args["n"] == 100
    assert results["accuracy"].metric_value == 350 / 360
    assert results["accuracy"].dataset_name == model.record.data
    assert "51.0% (95% interval 41.3–60.6, n = 100)" in card.text


def test_latex_escapes_every_special_character(model) -> None:
    text = formats.render("latex", [replace(model, name="a_b & 50% #1 $x^2$ ~{y} \\input{z} ℓ∞ 模")]).decode()
    row = next(line for line in text.splitlines() if "51.0" in line)
    assert row.count("&") - row.count("\\&") == 3  # model, reported, corrected, clean
    assert "51.0\\% (41.3--60.6)" in row
    name = row.split(" & 92")[0]
    assert name.strip() == (
        r"a\_b \& 50\% \#1 \$x\textasciicircum{}2\$ \textasciitilde{}\{y\} \textbackslash{}input\{z\} $\ell_\infty$ ?"
    )
    assert text.isascii()
    for opened, closed in (("begin", "end"), ("toprule", "bottomrule")):
        assert text.count(f"\\{opened}") == text.count(f"\\{closed}")


def test_parquet_has_every_metric_and_every_image(model, runs) -> None:
    other = load(runs[0])
    table = pyarrow.parquet.read_table(BytesIO(formats.render("parquet", [model, other])))
    rows = table.to_pylist()
    stored = [metric for each in (model, other) for result in each.results.values() for metric in result.metrics]
    assert [(row["name"], row["value"], row["n"]) for row in rows] == [(m.name, m.value, m.n) for m in stored]
    corrected = next(row for row in rows if row["name"] == "corrected_accuracy")
    assert (corrected["eps"], corrected["mode"], corrected["check"]) == (0.1, "mean", "diagnosis")


def test_the_rows_of_examples_are_those_of_the_audited_images(model) -> None:
    n = model.record.n
    diagnosed = model.results["diagnosis"].model_copy(
        update={"arrays": {"corrected_robust": np.arange(n) < 40, "broken": np.arange(n)}}
    )
    others = replace(model, name="other", results={})
    content = formats.render("examples", [replace(model, results={"diagnosis": diagnosed}), others])
    table = pyarrow.parquet.read_table(BytesIO(content))
    assert table.column_names == ["model", "row", "diagnosis.corrected_robust"]
    robust = table.column("diagnosis.corrected_robust").to_pylist()
    assert sum(robust[:n]) == 40
    assert robust[n:] == [None] * n


def test_the_test_report_has_all_its_parts_and_claims_nothing(model, judged) -> None:
    text = formats.render("report", [model], judged).decode()
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert len(titles) == 8
    assert "claims no accreditation" in text
    for fact in (model.record.model_hash, model.record.data_hash, "51.0%", "Missed: robust accuracy", "Wilson"):
        assert fact in text
    deviations = text[text.index("## 7.") : text.index("## 8.")]
    assert {"skipped", "error", "warning", "failed"} <= {
        line[2:].partition(":")[0] for line in deviations.splitlines() if line.startswith("* ")
    }
    rows = [line for line in text[text.index("## 5.") : text.index("## 6.")].splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + sum(len(result.metrics) for result in model.results.values())


def test_parquet_without_pyarrow_names_the_extra(model, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"isthmus\[parquet\]"):
        formats.render("parquet", [model])
