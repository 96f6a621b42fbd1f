"""The optimiser of a mixture that the objective only reports: what it moves, and how runs remember it."""

import pytest
import torch
from safetensors.torch import load_file

import isthmus
from isthmus.core.errors import ConfigError, FileError
from isthmus.core.recipe import load_recipe
from isthmus.data.loading import load
from isthmus.training.loop import Trainer
from isthmus.training.run import Run
from tests.training.recipes import TINY
from tests.training.test_resume import same, stop_at

SHORT = {"training.epochs": 1, "training.rho_schedule": None, "training.ema": None}
SGD = {"training.marginal_optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.5}}


def train(folder, **settings) -> Run:
    return isthmus.train(TINY, SHORT | settings, out=folder, progress=False)


def test_it_moves_the_marginal_and_nothing_else(tmp_path):
    slow, fast = (
        load_file(train(tmp_path / name, **{"training.marginal_optimizer": {"lr": lr}}).weights)
        for name, lr in (("slow", 1e-3), ("fast", 0.1))
    )
    differing = {name for name in slow if not torch.equal(slow[name], fast[name])}
    assert differing == {"marginal.raw", "marginal.logits"}


def test_its_step_is_that_of_the_setting(tmp_path):
    """SGD without momentum: the mixture goes down its own gradient, at that learning rate."""
    recipe = load_recipe(TINY, SHORT | {"training.marginal_optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0}})
    trainer = Trainer(recipe, load(recipe.data), Run(tmp_path / "run"))
    marginal = trainer.model.marginal
    before = marginal.raw.detach().clone()
    trainer._step(next(trainer._parts(0, 0)))
    torch.testing.assert_close(before - marginal.raw.detach(), 0.5 * marginal.raw.grad)
    assert float(marginal.raw.grad.abs().max()) > 0


def test_vib_trains_its_mixture_with_the_main_optimiser(tmp_path):
    recipe = load_recipe(TINY, SHORT | {"objective": "vib"})
    trainer = Trainer(recipe, load(recipe.data), Run(tmp_path / "run"))
    assert set(trainer.optimizers) == {"optimizer"}
    moved = {id(p) for group in trainer.optimizers["optimizer"].param_groups for p in group["params"]}
    assert {id(p) for p in trainer.model.marginal.parameters()} <= moved


def test_without_a_mixture_there_is_nothing_to_set():
    with pytest.raises(ConfigError, match=r"marginal_optimizer is for a learned m\(z\), and model.marginal is None"):
        load_recipe(TINY, {"model.marginal": None, **SGD})
    load_recipe(TINY, {"model.marginal": None})


def test_it_is_resumed_bitwise(tmp_path, monkeypatch):
    whole = train(tmp_path / "whole", **SGD)
    stop_at(10, monkeypatch)
    with pytest.raises(RuntimeError, match="plug"):
        train(tmp_path / "run", **SGD)
    monkeypatch.undo()
    assert same(train(tmp_path / "run", **SGD), whole)


def test_the_checkpoint_of_another_optimiser_is_refused(tmp_path, monkeypatch):
    stop_at(10, monkeypatch)
    with pytest.raises(RuntimeError, match="plug"):
        train(tmp_path / "run", **SGD)
    monkeypatch.undo()
    info = Run(tmp_path / "run").info()
    info["recipe"]["training"]["marginal_optimizer"] = {"lr": 1e-3}
    Run(tmp_path / "run").write_info(info)
    with pytest.raises(FileError, match="is not of this run"):
        train(tmp_path / "run", **{"training.marginal_optimizer": {"lr": 1e-3}})
