"""The JSON document of audits."""

from __future__ import annotations

import json
from pathlib import Path

from isthmus.report.document import document
from isthmus.report.loading import load_all
from tests.report.test_comparison import diagnosed, first


def test_the_document_has_verdicts_comparisons_and_every_metric(runs: list[Path]) -> None:
    models = load_all(runs[:2])
    models.append(diagnosed(models[0], "c", first(60), first(62)))
    found = json.loads(json.dumps(document(models, Path("runs/page.html")), allow_nan=False))
    assert list(found) == ["format", "page", "models", "verdicts", "comparison", "warnings", "metrics"]
    assert found["page"] == "runs/page.html"
    assert [each["model"] for each in found["models"]] == [model.name for model in models]
    assert set(found["models"][0]) == {"model", "folder", "data", "n", "seed", "settings", "cautions"}
    (verdict,) = found["verdicts"]
    assert set(verdict) == {"model", "status", "threat", "mode", "reported", "corrected", "reason"}
    assert (verdict["model"], verdict["status"], verdict["corrected"]["value"]) == ("c", "holds", 0.5)
    assert verdict["corrected"]["interval"]["level"] == 0.95
    assert found["comparison"]["pairs"] == []
    assert "not compared" in found["comparison"]["sentence"]
    keys = {"model", "check", "name", "coords", "value", "unit", "n", "interval", "note"}
    assert all(set(row) == keys for row in found["metrics"])
    assert len(found["metrics"]) == sum(len(result.metrics) for model in models for result in model.results.values())
    robust = [row for row in found["metrics"] if row["name"] == "robust_accuracy"]
    assert {row["coords"]["mode"] for row in robust} == {"mean", "stochastic"}
    assert {(each["status"], each["model"], each["check"]) for each in found["warnings"]} >= {
        ("skipped", "deterministic", "information")
    }


def test_the_pairs_of_the_document_have_intervals(runs: list[Path]) -> None:
    models = [diagnosed(load_all(runs[:1])[0], name, first(k), first(k)) for name, k in (("a", 60), ("b", 10))]
    (pair,) = document(models, Path("p.html"))["comparison"]["pairs"]
    assert (pair["first"], pair["second"], pair["difference"]["n"]) == ("a", "b", 120)
    assert 0 < pair["difference"]["interval"]["low"] < pair["difference"]["value"]
