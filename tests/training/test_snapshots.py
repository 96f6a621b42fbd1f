"""Weights that are kept on the way: what the model was after those very steps, also of a run that was stopped."""

import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import isthmus
from isthmus.audits.target import ModelSource, audit_run
from isthmus.core.errors import ConfigError, FileError
from isthmus.training.loop import Trainer
from tests.training.recipes import TINY

STEPS = (20, 45, 120)  # the end of an epoch, between two checkpoints, the end of the run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return isthmus.train(
        TINY, {"training.snapshots": STEPS}, out=tmp_path_factory.mktemp("whole") / "run", progress=False
    )


def test_a_snapshot_is_the_model_that_a_shorter_run_ends_with(whole, tmp_path):
    shorter = isthmus.train(TINY, {"training.epochs": 1}, out=tmp_path / "run", progress=False)
    expected, found = shorter.load().state_dict(), whole.load(20).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    last, end = whole.load(120).state_dict(), whole.load().state_dict()
    assert all(torch.equal(last[name], end[name]) for name in end)
    assert not all(torch.equal(found[name], end[name]) for name in end)


def test_snapshots_change_nothing_else(whole, tmp_path):
    plain = isthmus.train(TINY, out=tmp_path / "run", progress=False)
    assert plain.metrics() == whole.metrics()
    assert plain.info()["result"] == whole.info()["result"]


def test_a_stopped_run_keeps_the_same_snapshots(whole, tmp_path, monkeypatch):
    """Stopped after step 45 was kept and before a checkpoint says so: it is made again, and is the same."""
    take_step = Trainer._step

    def take_and_stop(self, *arguments):
        take_step(self, *arguments)
        if self.step == 47:
            raise RuntimeError("pulled the plug")

    monkeypatch.setattr(Trainer, "_step", take_and_stop)
    with pytest.raises(RuntimeError, match="plug"):
        isthmus.train(TINY, {"training.snapshots": STEPS}, out=tmp_path / "run", progress=False)
    monkeypatch.undo()
    run = isthmus.train(TINY, {"training.snapshots": STEPS}, out=tmp_path / "run", progress=False)
    for step in STEPS:
        first, second = load_file(run.weights_at(step)), load_file(whole.weights_at(step))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_damaged_snapshot_is_noticed(whole, tmp_path):
    kept, path = load_file(whole.weights_at(45)), whole.weights_at(45)
    whole_bytes = path.read_bytes()
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    name = next(name for name, value in kept.items() if value.is_floating_point())
    kept[name].view(-1)[0] += 1
    save_file(kept, path, header)
    with pytest.raises(FileError, match="does not match the checksum in its header"):
        whole.load(45)
    path.write_bytes(whole_bytes)
    whole.load(45)


def test_what_was_not_kept_is_said(whole):
    with pytest.raises(FileError, match=r"no weights of step 21 \(training.snapshots: those of 20, 45, 120\)"):
        isthmus.load(whole.path, step=21)


@pytest.mark.parametrize(
    ("steps", "said"),
    [([121], "includes step 121, but the run has 120 steps"), ([45, 20], "ascending"), ([0], "greater")],
)
def test_impossible_steps_are_refused(tmp_path, steps, said):
    with pytest.raises(ConfigError, match=said):
        isthmus.train(TINY, {"training.snapshots": steps}, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_snapshot_is_audited_beside_the_end(whole):
    """Calibration during training: one page that compares the model at chosen steps."""
    pages = [audit_run(ModelSource(whole.path, count=100, step=step), checks=["calibration"]) for step in (20, None)]
    assert pages[0] == whole.path / "step-20" / "page.html"
    assert "tiny, step 20" in pages[0].read_text()
    out = whole.path / "both.html"
    command = ["report", str(pages[0].parent), str(whole.path), "--out", str(out)]
    subprocess.run([sys.executable, "-m", "isthmus", *command], check=True, capture_output=True)
    assert "tiny, step 20" in out.read_text()
