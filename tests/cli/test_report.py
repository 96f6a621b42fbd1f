"""``isthmus report``."""

import json
import shutil

from tests.cli.commands import isthmus, isthmus_process


def test_a_report_compares_runs_without_torch(home, tmp_path):
    shadow = tmp_path / "torch.py"
    shadow.write_text("raise ImportError('the report imported torch')")
    done = isthmus_process(
        "report", "runs/small", "runs/small", "--out", tmp_path / "r.html", cwd=home, PYTHONPATH=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"page: {tmp_path / 'r.html'}"


def test_a_report_skips_what_is_not_audited(home, tmp_path):
    shutil.copytree(home / "runs/small", tmp_path / "runs/whole")
    shutil.copytree(home / "runs/small", tmp_path / "runs/unaudited", ignore=shutil.ignore_patterns("audit"))
    (tmp_path / "runs/demo").mkdir()
    (tmp_path / "runs/demo/inner").symlink_to(tmp_path / "runs/whole")
    arguments = ["report", *sorted(path.relative_to(tmp_path) for path in (tmp_path / "runs").iterdir())]
    for _ in "again":  # the page itself is among the arguments then
        done = isthmus(*arguments, "runs/page.html", "--out", "runs/page.html", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines() == [
            "Warning: skipped, since they hold no finished audit: runs/demo, runs/unaudited"
        ]
    none = isthmus("report", "runs/demo", "runs/unaudited", cwd=tmp_path)
    assert none.returncode == 2
    assert none.stderr == "Error: runs/demo holds no audit, but folders in it do; give those: runs/demo/*.\n"
    (tmp_path / "runs/whole/audit/accuracy.json").write_text("{")
    damaged = isthmus(*arguments, cwd=tmp_path)
    assert damaged.returncode == 2
    assert "accuracy.json" in damaged.stderr


def test_a_report_is_one_document_on_request(home, tmp_path):
    done = isthmus("report", "runs/small", "--out", tmp_path / "r.html", "--json", cwd=home)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["page"] == str(tmp_path / "r.html")
    assert found["verdicts"] == []
    (accuracy,) = [row for row in found["metrics"] if row["name"] == "accuracy" and row["coords"] == {"mode": "mean"}]
    assert (accuracy["model"], accuracy["check"], accuracy["n"]) == ("small", "accuracy", 40)
    assert accuracy["interval"]["low"] <= accuracy["value"] <= accuracy["interval"]["high"]


def test_a_report_shows_all_numbers_on_request(home, tmp_path):
    short, whole = (
        isthmus("report", "runs/small", "--out", tmp_path / "r.html", *options, cwd=home).stdout
        for options in ((), ("--all",))
    )
    assert whole.endswith(short)
    assert "clean accuracy" in " ".join(whole.split())
    assert "95% intervals below each value" in whole
    assert "rate R" not in short
    assert "rate R" in whole
