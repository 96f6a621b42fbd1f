"""A finished run trains on for more epochs, and ends as a run of that length; what resumes is said."""

import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file

import isthmus
from isthmus.core.errors import ConfigError
from isthmus.training.loop import Trainer
from isthmus.training.run import Run
from tests.cli.commands import isthmus as command
from tests.training.recipes import TINY

LONG = 5


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> Run:
    return train(tmp_path_factory.mktemp("long") / "run", LONG)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    return train(tmp_path_factory.mktemp("short") / "run", 3)


@pytest.fixture
def short(finished, tmp_path) -> Run:
    return Run(shutil.copytree(finished.path, tmp_path / "run"))


def train(out, epochs, **overrides) -> Run:
    """With a gate for ρ, milestones, augmentation, a moving average and a mixture beside the objective."""
    given = {
        "data.train_limit": 320,
        "objective.rho": 6,
        "training.augment": {"cutout": 2},
        "training.optimizer.lr": 0.02,
        "training.epochs": epochs,
        **overrides,
    }
    return isthmus.train(TINY, given, out=out, progress=False)


def same(first: Run, second: Run) -> bool:
    a, b = load_file(first.weights), load_file(second.weights)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_lengthened_run_is_bitwise_one_of_that_length(short, long):
    assert short.info()["result"]["step"] == 30
    run = train(short.path, LONG)
    assert same(run, long)
    assert run.metrics() == long.metrics()
    assert run.info()["result"] == long.info()["result"]
    assert run.info()["recipe"] == long.info()["recipe"]
    assert len(run.info()["starts"]) == 2


def test_a_run_folder_is_its_own_recipe(short, long):
    assert same(isthmus.train(short.path, ["training.epochs=5"], progress=False), long)
    assert isthmus.train(short.path).info()["recipe"]["training"]["epochs"] == LONG  # finished


def test_interrupted_while_lengthened_it_keeps_its_weights_and_resumes(short, long, monkeypatch, caplog):
    before = short.load().state_dict()
    take_step = Trainer._step

    def take_and_stop(self, *arguments):
        take_step(self, *arguments)
        if self.step == 37:
            raise RuntimeError("pulled the plug")

    monkeypatch.setattr(Trainer, "_step", take_and_stop)
    with pytest.raises(RuntimeError, match="plug"):
        train(short.path, LONG)
    monkeypatch.undo()
    assert short.info()["status"] == "running"
    assert all(torch.equal(value, before[name]) for name, value in short.load().state_dict().items())
    with caplog.at_level(logging.INFO, "isthmus.training"):
        assert same(train(short.path, LONG), long)
    assert f"Resuming {short.path} after step 35 of 50, in epoch 4 of 5, from its checkpoint of 20" in caplog.text


def test_fewer_epochs_and_other_changes_are_refused(short):
    for epochs, overrides in ((2, {}), (LONG, {"training.batch_size": 64}), (LONG, {"objective.rho": 3})):
        with pytest.raises(ConfigError, match="another recipe"):
            train(short.path, epochs, **overrides)
    assert short.info()["status"] == "finished"


def test_a_schedule_that_depends_on_the_length_is_refused(tmp_path):
    jump = {"training.rho_schedule": {"name": "jump_start", "steps": 25}}
    run = train(tmp_path / "run", 3, **jump)
    with pytest.raises(
        ConfigError, match=r"share=0.667 limits the first stage to 20 steps in a run of 30, and to 25 in"
    ):
        train(run.path, LONG, **jump)
    assert run.info()["status"] == "finished"
    fixed = {"training.rho_schedule": {"name": "jump_start", "steps": 15}}  # within two thirds of both
    run = train(tmp_path / "fixed", 3, **fixed)
    assert same(train(run.path, LONG, **fixed), train(tmp_path / "long", LONG, **fixed))


def test_a_run_without_its_checkpoint_is_refused(short):
    short.checkpoint.unlink()
    with pytest.raises(ConfigError, match=r"no checkpoint.safetensors, from which to train on; train 5 epochs in"):
        train(short.path, LONG)


def test_the_command_says_what_it_resumes_and_what_changed(short, caplog):
    info = short.info()
    info["starts"][-1]["packages"]["torch"] = "2.6.0"
    short.write_info(info)
    done = command("train", str(short.path), "training.epochs=4", cwd=short.path)
    assert done.returncode == 0, done.stderr
    assert f"changed: packages.torch 2.6.0 → {torch.__version__}." in caplog.text
    assert "after step 30 of 40, in epoch 4 of 4" in caplog.text
