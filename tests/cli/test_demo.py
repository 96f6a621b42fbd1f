"""``isthmus demo``."""

import json
from pathlib import Path

import pytest

from isthmus.core.recipe import load_recipe
from isthmus.studies import demo
from tests.cli.commands import isthmus_process


def test_the_demo_compares_its_classifiers(tmp_path, monkeypatch):
    """With two of the five, fewer epochs and few checks; all of them take a minute and a half."""
    short = [load_recipe(recipe, {"training.epochs": 10}) for recipe in demo.recipes()]
    monkeypatch.setattr(demo, "recipes", lambda: [each for each in short if each.name in ("determ", "ceb-rho4")])
    monkeypatch.setattr(demo, "CHECKS", ("accuracy", "calibration", "memorisation"))
    page = demo.run_demo(tmp_path, show_progress=False).read_text()
    for name in ("determ", "ceb-rho4"):
        assert name in page
        record = json.loads((tmp_path / name / "audit" / "accuracy.json").read_text())
        assert record["metrics"][0]["value"] > 0.9


@pytest.mark.slow
def test_the_demo_compares_five_classifiers(tmp_path):
    done = isthmus_process("demo", "--out", "demo", cwd=tmp_path, ISTHMUS_DATA="")
    assert done.returncode == 0, done.stderr
    page = tmp_path / "demo" / "page.html"
    lines = done.stdout.splitlines()
    assert lines[-1] == f"page: {Path('demo/page.html')}"
    assert len(lines) <= 25
    assert lines[0].startswith("verdict: robust accuracy at ℓ∞ 0.1 ")
    for name in ("determ", "vib-rho0", "vib-rho4", "ceb-rho0", "ceb-rho4"):
        assert name in page.read_text()
        record = json.loads((tmp_path / "demo" / name / "audit" / "accuracy.json").read_text())
        assert record["metrics"][0]["value"] > 0.9
    again = isthmus_process("demo", "--out", "demo", cwd=tmp_path)
    assert again.returncode == 0
