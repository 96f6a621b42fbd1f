"""``isthmus audit``."""

import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer

from isthmus.cli.exit_codes import stop_at_verdicts
from tests.cli.commands import isthmus


def test_a_run_is_audited(home):
    record = json.loads((home / "runs/small/audit/audit.json").read_text())
    assert (record["n"], record["model"], record["settings"]["threat"]) == (40, "small", "linf:0.05")
    assert "<html" in (home / "runs/small/page.html").read_text()


def test_a_check_that_fails_with_an_error_is_reported_and_is_no_success(home):
    audit = ("audit", "--model", "theirs:trained", "--data", "digits", "--n", 30, "--out", "runs/failing")
    done = isthmus(*audit, "--checks", "accuracy,dataset_transfer:folder:nowhere", cwd=home)
    assert done.returncode == 2
    assert "error: dataset_transfer: " in " ".join(done.stdout.split())
    assert done.stdout.splitlines()[-1] == f"page: {Path('runs/failing/page.html')}"
    assert done.stderr.startswith("Error: dataset_transfer of theirs.trained ended")
    assert (home / "runs/failing/audit/accuracy.json").exists()
    assert "ended with an error" in (home / "runs/failing/page.html").read_text()
    other = isthmus(*audit, "--checks", "accuracy", cwd=home)
    assert other.returncode == 0, "this audit did not run the check that failed"


def test_several_models_are_audited_as_one_ensemble(home):
    members = "ensemble:runs/small,theirs:trained"
    done = isthmus("audit", "--model", members, "--data", "digits", "--n", 30, "--checks", "accuracy", cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"page: {Path('runs/ensemble-small-theirs.trained/page.html')}"
    unknown = isthmus("audit", "--model", members, cwd=home)
    assert "--model needs --data" in unknown.stderr
    for given, message in (
        ("runs/small", "two models or more"),
        ("runs/small,runs/small", "names runs/small twice"),
        ("runs/small,runs/no", "runs/no is no run folder"),
    ):
        refused = isthmus("audit", "--model", f"ensemble:{given}", "--data", "digits", cwd=home)
        assert message in refused.stderr
        assert refused.returncode == 2
    refused = isthmus("audit", "--model", members, "--weights", "w.pt", "--data", "digits", cwd=home)
    assert "Weights belong to one model" in refused.stderr


def test_classes_are_kept_in_the_order_of_the_models_logits(home, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("0\n1\n2\n3\n4\n5\n6\n7\n")
    audit = ("audit", "--model", "theirs:trained", "--data", "digits", "--n", 40, "--checks", "accuracy", "--quiet")
    right = isthmus(*audit, "--classes", names, "--out", tmp_path / "right", cwd=home)
    assert right.returncode == 0, right.stderr
    confusion = np.load(tmp_path / "right/audit/accuracy.npz")["confusion"]
    assert confusion[:8].sum(1).tolist() == [5] * 8
    assert not confusion[8:].any()
    wrong = isthmus(*audit, "--classes", "7,6,5,4,3,2,1,0", "--out", tmp_path / "wrong", cwd=home)
    assert wrong.returncode == 2
    assert "permuted" in wrong.stderr
    for given, fault in (("7", "at least two classes"), ("7,six", "six"), ("1,1", "named 2 times")):
        done = isthmus(*audit, "--classes", given, cwd=home)
        assert done.returncode == 2
        assert fault in done.stderr
    alone = isthmus("audit", "--model", "theirs:trained", "--classes", "1,2", cwd=home)
    assert "--classes belongs to --data" in alone.stderr


@pytest.mark.parametrize("checks", ["accuracy", "diagnosis", "accuracy,robustness"])
def test_at_chance_the_error_comes_before_any_attack_and_there_is_no_verdict(home, checks):
    audit = ("audit", "--model", "theirs:cut", "--data", "digits", "--n", 30, "--out", "runs/cut")
    done = isthmus(*audit, "--checks", checks, cwd=home)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: theirs.cut is at chance. ")
    assert "Nearly all predictions are class" in done.stderr
    assert "verdict: none" in done.stdout
    for check in {"diagnosis", "robustness"}.intersection(checks.split(",")):
        assert json.loads((home / f"runs/cut/audit/{check}.json").read_text())["status"] == "skipped"
    assert isthmus("report", "runs/cut", cwd=home).returncode == 0


def test_an_audit_prints_one_document_on_request(home):
    audit = ("audit", "--model", "theirs:trained", "--data", "digits", "--n", 30, "--out", "runs/as-json")
    done = isthmus(*audit, "--checks", "accuracy", "--json", "--fail-under", "clean=10%", cwd=home)
    assert done.returncode == 0, done.stderr
    assert isthmus(*audit, "--checks", "accuracy", "--fail-under", "clean=100%", cwd=home).returncode == 6
    found = json.loads(done.stdout)
    assert found["page"] == str(Path("runs/as-json/page.html"))
    assert {row["check"] for row in found["metrics"]} == {"accuracy"}


def test_an_audit_writes_the_files_of_ci_servers_even_below_a_threshold(home, tmp_path):
    audit = ("audit", "--model", "theirs:trained", "--data", "digits", "--n", 30, "--out", "runs/in-ci")
    paths = {name: tmp_path / f"of.{name}" for name in ("junit", "sarif", "markdown")}
    options = [word for name, path in paths.items() for word in (f"--{name}", path)]
    done = isthmus(*audit, "--checks", "accuracy", "--fail-under", "clean=100%", *options, cwd=home)
    assert done.returncode == 6
    texts = {name: path.read_text("utf-8") for name, path in paths.items()}
    assert all("100.0% is required" in text for text in texts.values())
    out = ("--formats", "junit,sarif,markdown", "--out", tmp_path / "again", "--fail-under", "clean=100%")
    again = isthmus("export", "runs/in-ci", *out, cwd=home)
    assert again.returncode == 6
    written = [Path(line.removeprefix("wrote: ")).read_text("utf-8") for line in again.stdout.splitlines()]
    assert written == list(texts.values())


def test_a_foreign_model_is_audited(home):
    arguments = (
        "audit",
        "--model",
        "theirs:trained",
        "--data",
        "digits",
        "--n",
        30,
        "--checks",
        "accuracy,calibration",
    )
    done = isthmus(*arguments, cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"page: {Path('runs/theirs.trained/page.html')}"
    audit = home / "runs/theirs.trained/audit"
    assert not (audit / "robustness.json").exists()
    for check in ("accuracy", "calibration"):  # as if interrupted in the first
        (audit / f"{check}.json").unlink()
    unfinished = isthmus("report", "runs/theirs.trained", cwd=home)
    assert unfinished.returncode == 2
    assert unfinished.stderr.endswith(f" To resume: {shlex.join(['isthmus', *map(str, arguments)])}\n")


@pytest.mark.parametrize(
    ("statuses", "code"), [(["undecided"], 5), (["undecided", "overstated"], 3), (["overstated", "broken", "holds"], 4)]
)
def test_the_exit_code_is_that_of_the_gravest_verdict(statuses, code):
    found = [SimpleNamespace(details={"verdict": {"status": status}}) for status in statuses]
    with pytest.raises(typer.Exit) as stop:
        stop_at_verdicts([SimpleNamespace(results={"diagnosis": each}) for each in found], ["diagnosis"])
    assert stop.value.exit_code == code
