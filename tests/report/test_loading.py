"""Reading run folders: names of their own, and one clear sentence for each thing that can be wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from isthmus.core import files
from isthmus.core.errors import FileError
from isthmus.report.loading import distinct, is_audited, load, load_all
from isthmus.report.summary import cautions
from isthmus.report.terminal import remarks_of


@pytest.fixture
def run(runs: list[Path], tmp_path: Path) -> Path:
    return shutil.copytree(runs[4], tmp_path / "ceb-rho0")


def test_a_run_folder_is_read_whole(run: Path) -> None:
    model = load(run)
    assert model.name == "ceb-rho0"
    assert model.recipe is not None
    assert model.recipe["objective"] == {"name": "ceb", "rho": 0.0}
    assert model.provenance["commit"].startswith("4f0c")
    assert set(model.results) == {"accuracy", "robustness", "calibration", "information"}
    assert model.results["robustness"].arrays["adversarial"].shape == (6, 8, 8)
    assert len(model.training) == 20


def test_a_foreign_classifier_has_an_audit_alone(run: Path) -> None:
    (run / "run.json").unlink()
    (run / "metrics.jsonl").unlink()
    for folder in (run, run / "audit"):
        model = load(folder)
        assert model.name == "ceb-rho0"
        assert model.recipe is None
        assert model.training == ()
        assert model.provenance == model.record.provenance


def test_half_a_last_line_of_metrics_is_no_fault(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 231, "ep')
    assert len(load(run).training) == 20


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda run: shutil.rmtree(run), "There is no run folder .*ceb-rho0; give folders that"),
        (lambda run: shutil.rmtree(run / "audit"), "holds no audit; run `isthmus audit .*ceb-rho0` first"),
        (
            lambda run: truncate(run / "audit" / "audit.json"),
            r"audit\.json is not a readable JSON file .*delete",
        ),
        (lambda run: (run / "audit" / "audit.json").write_text("{}"), r"audit\.json was written by an older version"),
        (lambda run: (run / "audit" / "audit.json").write_text('{"format": 4}'), r"audit\.json is not a result that"),
        (lambda run: (run / "audit" / "audit.json").write_text("[]"), r"audit\.json is no result of isthmus \(list\)"),
        (
            lambda run: truncate(run / "audit" / "accuracy.json"),
            r"accuracy\.json is not a readable JSON .*delete",
        ),
        (
            lambda run: truncate(run / "audit" / "robustness.npz"),
            r"robustness\.npz is not a readable array file",
        ),
        (lambda run: (run / "audit" / "robustness.npz").unlink(), r"There is no file .*robustness\.npz"),
        (lambda run: truncate(run / "run.json"), r"run\.json is not a readable JSON file"),
        (
            lambda run: (run / "run.json").write_text('{"format": 1}'),
            r"run\.json was written by another version of isthmus, isthmus \(its format is 1, expected 2\)",
        ),
        (
            lambda run: (run / "run.json").write_text("[]"),
            r"run\.json is no record of a run \(list\); restore it",
        ),
        (
            lambda run: (run / "metrics.jsonl").write_text("no\n{}\n"),
            r"metrics\.jsonl is not JSON on line 1; mend",
        ),
        (
            lambda run: (run / "metrics.jsonl").write_bytes(b"\xff\xfe"),
            r"metrics\.jsonl cannot be read .*delete it",
        ),
        (
            lambda run: [p.unlink() for p in (run / "audit").glob("*.json") if p.stem != "audit"],
            r"has no finished check\. To resume, repeat the call of isthmus\.audit\.",
        ),
        (
            lambda run: [(run / "run.json").unlink(), shutil.rmtree(run / "audit")],
            "holds no audit; give folders that `isthmus audit` or",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_sentence(run: Path, spoil: Callable[[Path], object], sentence: str) -> None:
    spoil(run)
    with pytest.raises(FileError, match=sentence) as raised:
        load(run)
    assert "\n" not in str(raised.value)


def test_an_unfinished_audit_names_the_command_that_resumes_it(run: Path) -> None:
    path, command = run / "audit/audit.json", "isthmus audit --model net:build --data digits --n 40"
    record = files.read_json(path)
    record["provenance"]["command"], record["checks"] = command, ["accuracy", "shift", "robustness", "corruptions"]
    files.write_json(path, record)
    model = load(run)
    assert model.unfinished == f"There is no result of shift and corruptions yet. To resume: {command}"
    assert [remark.reason for remark in remarks_of([model]) if remark.word == "unfinished"] == [model.unfinished]
    assert any(model.unfinished in caution for caution in cautions([model]))
    for result in (run / "audit").glob("*.json"):
        if result != path:
            result.unlink()
    with pytest.raises(FileError, match=f"To resume: {command}$"):
        load(run)


def test_a_folder_of_runs_is_told_from_a_run(run: Path) -> None:
    assert is_audited(run)
    assert not is_audited(run.parent)
    with pytest.raises(FileError, match=r"but folders in it do; give those: .*/\*"):
        load(run.parent)
    truncate(run / "audit" / "accuracy.json")
    assert is_audited(run), "damaged is not the same as not there"


def test_whether_training_collapsed_is_in_its_result(run: Path) -> None:
    model = load(run)
    assert not model.collapsed
    assert replace(model, run={**model.run, "result": {"collapsed": True}}).collapsed
    assert not replace(model, run={**model.run, "result": None}).collapsed


def test_a_file_is_no_run_folder(run: Path) -> None:
    with pytest.raises(FileError, match=r"run\.json is a file; give the run folder"):
        load(run / "run.json")


def test_no_folder_at_all_is_said_so() -> None:
    with pytest.raises(FileError, match="nothing to report on; give at least one run folder"):
        load_all([])


def test_a_folder_given_twice_is_shown_once(runs: list[Path]) -> None:
    folders = [runs[1], runs[0], runs[1].parent / "." / runs[1].name]
    assert [model.name for model in load_all(folders)] == ["vib-rho4", "deterministic"]


def test_namesakes_are_told_apart(run: Path) -> None:
    model = load(run)
    recipe = dict(model.recipe or {})
    seeds = distinct([model, replace(model, recipe=recipe | {"seed": 3})])
    assert [one.name for one in seeds] == ["ceb-rho0 · seed 0", "ceb-rho0 · seed 3"]
    folders = distinct([model, replace(model, folder="second")])
    assert [one.name for one in folders] == ["ceb-rho0", "ceb-rho0 · second"], "no name is given twice"
    assert [one.name for one in distinct([model, model])] == ["ceb-rho0 · no. 1", "ceb-rho0 · no. 2"]
    mixed = distinct([model, model, replace(model, recipe=recipe | {"seed": 3})])
    assert len({one.name for one in mixed}) == 3


def test_provenance_of_a_resumed_run_is_its_last_start(run: Path) -> None:
    content = files.read_json(run / "run.json")
    files.write_json(run / "run.json", content | {"starts": [{"commit": "old"}, {"commit": "new"}]})
    assert load(run).provenance == {"commit": "new"}
