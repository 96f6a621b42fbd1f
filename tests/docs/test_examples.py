"""The examples that the tutorials show, run for real."""

import importlib
import re
import shutil
import sys
import tomllib

import pytest
import yaml

from isthmus.cli import app
from isthmus.core import registry
from isthmus.core.types import Status
from isthmus.training.run import Run
from tests.docs.doc_pages import DOCS, ROOT, blocks, console_lines

EXAMPLES = ROOT / "examples"


def run(words):
    """One ``isthmus`` command in this process; its exit code."""
    with pytest.raises(SystemExit) as end:
        app.main([*words[1:], *(["--quiet"] if words[1] in {"train", "audit"} else [])])
    return end.value.code


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder, from which modules can be imported and are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"own_backbone", "mypackage"}:
            del sys.modules[name]


@pytest.mark.slow
def test_own_backbone(folder, capsys):
    """The script trains to well above chance and audits; then the tutorial's command audits its weights."""
    shutil.copy(EXAMPLES / "own_backbone.py", folder)
    audit = importlib.import_module("own_backbone").main(folder, epochs=6, count=40)
    shown = capsys.readouterr().out
    assert "ReX" in shown
    assert f"page: {folder / 'own-backbone.html'}" in shown
    assert (folder / "own-backbone.html").stat().st_size > 10_000
    accuracy = audit.results["accuracy"].metrics
    assert accuracy.one("accuracy", mode="mean").value > 0.5
    assert accuracy.get("accuracy", mode="stochastic")
    assert all(result.status is not Status.ERROR for result in audit.results.values())

    commands = [words for _, words in console_lines(DOCS / "tutorials" / "own-backbone.md") if words[0] == "isthmus"]
    assert len(commands) == 1
    assert run([*commands[0], "--checks", "accuracy"]) == 0
    assert "page: runs/own_backbone.build-own-backbone/page.html" in capsys.readouterr().out


@pytest.fixture
def mypackage(folder):
    """The tutorial's components as an installed package with the tutorial's own entry points."""
    page = DOCS / "tutorials" / "own-component.md"
    (block,) = blocks(page, "toml")
    groups = tomllib.loads(block.text)["project"]["entry-points"]
    metadata = folder / "mypackage-0.1.dist-info"
    for created in (folder / "mypackage", metadata):
        created.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mypackage\nVersion: 0.1\n")
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
        for value in entries.values():
            module = value.partition(":")[0].rpartition(".")[2]
            shutil.copy(EXAMPLES / f"{module}.py", folder / "mypackage")
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    registry._registered.cache_clear()
    yield page
    registry._registered.cache_clear()


def test_own_components(mypackage, folder, capsys):
    """The tutorial's recipe and commands, in order, with a dataset, an objective and a check from elsewhere."""
    (recipe,) = blocks(mypackage, "yaml")
    (folder / "stripes.yaml").write_text(recipe.text)
    for place, words in console_lines(mypackage):
        assert run(words) == 0, f"{place}: {capsys.readouterr().err}"
    shown = capsys.readouterr().out
    assert Run(folder / "runs" / "stripes").info()["result"]["test_accuracy"] > 0.9
    assert "\nsquared_rate " in shown
    assert re.search(r"also measured \(--all\): .*narrow", shown)
    page = (folder / "runs" / "stripes" / "page.html").read_text("utf-8")
    assert "narrow" in page
    assert "feature_norm" in page
    assert yaml.safe_load(recipe.text)["objective"]["name"] == "squared_rate"
