"""A run survives being killed: the same command goes on, and ends with bitwise the same weights."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import isthmus
from isthmus.core.errors import ConfigError, FileError, ModelError
from isthmus.training import checkpoints
from isthmus.training.loop import Trainer
from isthmus.training.run import Run
from tests.training.recipes import TINY


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    """A run that nobody interrupted."""
    return isthmus.train(TINY, out=tmp_path_factory.mktemp("whole") / "run", progress=False)


KILLED = """
import os, signal, sys
from isthmus.cli.app import main
from isthmus.training.loop import Trainer

take_step, last = Trainer._step, int(sys.argv[1])


def take_and_die(self, *arguments):
    take_step(self, *arguments)
    if self.step == last:
        os.kill(os.getpid(), signal.SIGKILL)


Trainer._step = take_and_die
main(["train", *sys.argv[2:]])
"""


def kill_after_steps(recipe: Path, out: Path, steps: int) -> None:
    """Start the real command, which is killed right after a step."""
    command = [sys.executable, "-c", KILLED, str(steps), str(recipe), "--out", str(out)]
    killed = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    assert killed.returncode == -signal.SIGKILL


def test_killed_run_resumes_to_bitwise_the_same_weights(whole, tmp_path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(TINY))
    kill_after_steps(recipe, tmp_path / "killed", 40)
    run = isthmus.train(recipe, out=tmp_path / "killed", progress=False)
    expected, found = load_file(whole.weights), load_file(run.weights)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert run.metrics() == whole.metrics()
    assert run.info()["result"] == whole.info()["result"]
    assert len(run.info()["starts"]) == 2


def stop_at(step: int, monkeypatch, how=lambda: (_ for _ in ()).throw(RuntimeError("pulled the plug"))) -> None:
    """Make the trainer stop after a step, before it can write anything about it."""
    take_step = Trainer._step

    def take_and_stop(self, *arguments):
        take_step(self, *arguments)
        if self.step == step:
            how()

    monkeypatch.setattr(Trainer, "_step", take_and_stop)


def same(first: Run, second: Run) -> bool:
    a, b = load_file(first.weights), load_file(second.weights)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def steps(*often: int, seldom: tuple[int, ...]):
    """Parametrise by the step to stop at; the tests of some steps are slow."""
    return pytest.mark.parametrize("step", [*often, *(pytest.param(step, marks=pytest.mark.slow) for step in seldom)])


@steps(7, seldom=(1, 19, 20, 21, 60, 119, 120))
def test_every_step_is_a_safe_place_to_stop(whole, tmp_path, monkeypatch, step):
    """In the first epoch, before and after a checkpoint, at an epoch's end, with the gate open and closed."""
    stop_at(step, monkeypatch)
    with pytest.raises(RuntimeError, match="plug"):
        isthmus.train(TINY, out=tmp_path / "run", progress=False)
    monkeypatch.undo()
    run = isthmus.train(TINY, out=tmp_path / "run", progress=False)
    assert same(run, whole)
    assert run.metrics() == whole.metrics()
    assert run.info()["result"] == whole.info()["result"]


CONV = {
    "model.backbone": "conv",
    "training.channels_last": True,
    "training.precision": "bf16",
    "training.augment": "none",
}


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(CONV, marks=pytest.mark.slow),
        CONV | {"training.optimizer": {"name": "sgd", "lr": 0.01, "nesterov": True}},
        CONV
        | {"model.backbone": {"name": "wide_resnet", "depth": 7, "width": 1, "norm": True}, "training.clip_norm": 1},
        {"training.log_every": 1000},
        {"training.precision": "fp16"},
        pytest.param(
            {
                "model.backbone": {"name": "wide_resnet", "depth": 7, "width": 1, "norm": True},
                "training.adversarial": {"name": "pgd:2 l2:0.3", "mode": "stochastic", "batch_norm": "train"},
            },
            marks=pytest.mark.slow,
        ),
    ],
    ids=[
        "conv adam bf16 channels_last",
        "sgd",
        "batch norm",
        "no metrics before the checkpoint",
        "fp16",
        "adversarial",
    ],
)
def test_resume_is_bitwise_for_other_nets_and_optimisers(tmp_path, monkeypatch, overrides):
    overrides = {"data.train_limit": 320, "data.test_limit": 50, "training.epochs": 2} | overrides  # 20 steps
    whole = isthmus.train(TINY, overrides, out=tmp_path / "whole", progress=False)
    for step in (9, 13):
        stop_at(step, monkeypatch)
        with pytest.raises(RuntimeError, match="plug"):
            isthmus.train(TINY, overrides, out=tmp_path / "run", progress=False)
        monkeypatch.undo()
    run = isthmus.train(TINY, overrides, out=tmp_path / "run", progress=False)
    assert same(run, whole)
    assert run.metrics() == whole.metrics()


GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory")


def test_a_step_without_memory_is_explained_and_costs_nothing(whole, tmp_path, monkeypatch):
    for error in (GPU, CPU, MemoryError()):

        def fail(error=error):
            raise error

        stop_at(30, monkeypatch, how=fail)
        with pytest.raises(
            ModelError, match=r"does not fit into memory: 32 images a batch, 32 at a time.*accumulate=2"
        ):
            isthmus.train(TINY, out=tmp_path / "run", progress=False)
        monkeypatch.undo()
    assert same(isthmus.train(TINY, out=tmp_path / "run", progress=False), whole)


@steps(4, seldom=(1, 20, 120))
def test_ctrl_c_waits_for_the_end_of_the_step_and_loses_nothing(whole, tmp_path, monkeypatch, step):
    stop_at(step, monkeypatch, how=lambda: signal.raise_signal(signal.SIGINT))
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        isthmus.train(TINY, out=tmp_path / "run", progress=False)
    assert signal.getsignal(signal.SIGINT) is handler
    assert checkpoints.read(Run(tmp_path / "run").checkpoint)[1]["step"] == step
    monkeypatch.undo()
    run = isthmus.train(TINY, out=tmp_path / "run", progress=False)
    assert same(run, whole)
    assert run.metrics() == whole.metrics()
    assert run.info()["result"] == whole.info()["result"]


def test_leftovers_of_a_killed_write_are_cleaned_up(whole, tmp_path):
    run = Run(tmp_path / "run")
    run.path.mkdir()
    (run.path / ".checkpoint.safetensors.abc.part").write_bytes(b"half")
    isthmus.train(TINY, {"training.epochs": 1}, out=run.path, progress=False)
    assert not list(run.path.glob(".checkpoint*"))


def test_lost_weights_are_written_again(whole, tmp_path):
    run = Run(shutil.copytree(whole.path, tmp_path / "run"))
    run.weights.unlink()
    again = isthmus.train(TINY, out=run.path, progress=False)
    assert same(again, whole)


def test_lost_metrics_do_not_stop_a_run(whole, tmp_path, monkeypatch):
    stop_at(30, monkeypatch)
    with pytest.raises(RuntimeError, match="plug"):
        isthmus.train(TINY, out=tmp_path / "run", progress=False)
    monkeypatch.undo()
    Run(tmp_path / "run").metrics_file.unlink()
    run = isthmus.train(TINY, out=tmp_path / "run", progress=False)
    assert same(run, whole)
    assert run.metrics()[-1] == whole.metrics()[-1]


@pytest.mark.parametrize("name", ["checkpoint", "weights"])
def test_a_flipped_bit_is_noticed(whole, tmp_path, name):
    run = Run(shutil.copytree(whole.path, tmp_path / "run"))
    path = getattr(run, name)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileError, match="checksum"):
        checkpoints.read(path) if name == "checkpoint" else run.load()


def test_a_finished_run_is_not_trained_again(whole):
    before = whole.weights.stat().st_mtime_ns
    again = isthmus.train(TINY, out=whole.path, progress=False)
    assert again.weights.stat().st_mtime_ns == before


def test_another_recipe_in_the_same_folder_is_refused(whole):
    with pytest.raises(ConfigError, match="objective.rho"):
        isthmus.train(TINY, {"objective.rho": 2}, out=whole.path)


def test_a_truncated_checkpoint_is_said(whole, tmp_path):
    run = Run(tmp_path / "run")
    run.write_info({**whole.info(), "status": "running"})
    run.checkpoint.write_bytes(whole.checkpoint.read_bytes()[:1000])
    with pytest.raises(FileError, match="checkpoint .* cannot be read .* Delete it"):
        isthmus.train(TINY, out=run.path, progress=False)


@pytest.mark.parametrize(
    "damage", ["bit flipped", *(pytest.param(damage, marks=pytest.mark.slow) for damage in ("truncated", "gone"))]
)
def test_a_damaged_checkpoint_costs_no_more_than_the_one_before_it(whole, tmp_path, monkeypatch, caplog, damage):
    stop_at(30, monkeypatch)
    with pytest.raises(RuntimeError, match="plug"):
        isthmus.train(TINY, out=tmp_path / "run", progress=False)
    monkeypatch.undo()
    path = Run(tmp_path / "run").checkpoint
    content = bytearray(path.read_bytes())
    step = checkpoints.read(checkpoints.before(path))[1]["step"]
    assert step < checkpoints.read(path)[1]["step"] <= 30
    if damage == "gone":  # killed between two renames, where links are not to be had
        path.unlink()
    else:
        content[-5] ^= 1
        path.write_bytes(content if damage == "bit flipped" else content[:1000])
    run = isthmus.train(TINY, out=tmp_path / "run", progress=False)
    assert f"resumes from the previous checkpoint, of step {step}" in caplog.text
    assert same(run, whole)
    assert run.metrics() == whole.metrics()
    assert not checkpoints.before(path).exists(), "a finished run keeps one"


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    """The write of a checkpoint fails with ENOSPC half-way; the run says so, and goes on once there is space."""
    import errno

    real, calls = os.replace, []

    def replace(source, target):
        if str(target).endswith("checkpoint.safetensors"):
            calls.append(target)
            if len(calls) == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
        return real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(FileError, match="No space left on device.*run the same command again"):
        isthmus.train(TINY, out=tmp_path / "run", progress=False)
    assert not list((tmp_path / "run").glob(".checkpoint*")), "no temporary file is left"
    kept = Run(tmp_path / "run").checkpoint.stat().st_size
    assert kept > 1000
    monkeypatch.undo()
    assert isthmus.train(TINY, out=tmp_path / "run", progress=False).weights.exists()


def test_two_processes_cannot_train_one_run(whole, tmp_path):
    import fcntl

    run = Run(tmp_path / "run")
    run.write_info({**whole.info(), "status": "running"})
    with (run.path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(FileError, match="Another process is training"):
            isthmus.train(TINY, out=run.path, progress=False)


def test_metrics_read_past_a_line_cut_off_by_a_kill(whole, tmp_path):
    run = Run(tmp_path)
    lines = whole.metrics_file.read_text().splitlines()
    run.metrics_file.write_text("\n".join(lines[:3]) + "\n" + lines[3][:20])
    assert run.metrics() == [json.loads(line) for line in lines[:3]]
