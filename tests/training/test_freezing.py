"""Frozen layers keep their weights and statistics; training from pretrained weights is recorded."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file

import isthmus
from isthmus.core.errors import ConfigError, FileError
from isthmus.core.recipe import load_recipe
from isthmus.models import factory
from isthmus.training.loop import Trainer
from isthmus.training.run import Run

RECIPE = {
    "name": "frozen",
    "data": {"name": "digits", "train_limit": 320, "test_limit": 50},
    "model": {
        "backbone": {"name": "wide_resnet", "depth": 7, "width": 1, "norm": True},
        "dim": 4,
        "freeze": ["backbone.*"],
    },
    "objective": {"name": "ceb", "rho": 3},
    "training": {"epochs": 2, "batch_size": 64, "checkpoint_every": 3, "ema": 0.9},
}


def train(tmp_path, overrides=(), name="run") -> Run:
    return isthmus.train(RECIPE, overrides, out=tmp_path / name, progress=False)


def initial(overrides=()):
    recipe = load_recipe(RECIPE, overrides)
    data = recipe.data.load()
    return factory.build(recipe, data.shape, 10, data).state_dict()


def changed(run: Run, overrides=()) -> set[str]:
    before = initial(overrides)
    return {name for name, value in load_file(run.weights).items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("adversarial", [None, {"name": "pgd:1 linf:0.1", "batch_norm": "train"}])
def test_frozen_layers_keep_weights_and_statistics_to_the_bit(tmp_path, adversarial):
    found = changed(train(tmp_path, {"training.adversarial": adversarial}))
    assert found
    assert not [name for name in found if name.startswith("backbone.")]


def test_the_other_layers_learn_with_the_frozen_statistics(tmp_path):
    """The features during training are those of eval mode."""
    recipe = load_recipe(RECIPE)
    trainer = Trainer(recipe, recipe.data.load(), Run(tmp_path))
    features = []
    trainer.model.backbone.register_forward_hook(lambda _, __, output: features.append(output.detach()))
    trainer.model.train()
    trainer.frozen.keep_statistics()
    batch = next(trainer.batches.epoch())
    trainer._step([batch])
    trainer.model.eval()(batch.images)
    assert torch.equal(*features)


def test_patterns_name_layers_or_weights(tmp_path):
    freeze = ["backbone.*bias", "backbone.blocks.0", "classifier"]
    names = [name for name in initial() if name.startswith("backbone.")]
    frozen = {name for name in names if name.endswith("bias") or name.startswith("backbone.blocks.0.")}
    found = changed(train(tmp_path, {"model.freeze": freeze}))
    assert not found & frozen
    assert not [name for name in found if name.startswith("classifier.")]
    weights = {name for name in names if re.search(r"blocks\.[12].*weight", name)}
    assert weights
    assert weights <= found


def test_a_frozen_run_resumes_bitwise(tmp_path, monkeypatch):
    whole = train(tmp_path, name="whole")
    take_step = Trainer._step

    def take_and_stop(self, *arguments):
        take_step(self, *arguments)
        if self.step == 7:
            raise RuntimeError("pulled the plug")

    monkeypatch.setattr(Trainer, "_step", take_and_stop)
    with pytest.raises(RuntimeError, match="plug"):
        train(tmp_path)
    monkeypatch.undo()
    first, second = load_file(whole.weights), load_file(train(tmp_path).weights)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_patterns_that_match_nothing_or_everything_are_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"model.freeze: There is no layer 'backbone.blokcs'. Did you mean 'backbone.blocks'"
    ):
        train(tmp_path, {"model.freeze": ["backbone.blokcs"]})
    with pytest.raises(ConfigError, match="leaves no weight to train"):
        train(tmp_path, {"model.freeze": ["*"]})
    assert not (tmp_path / "run").exists()


def test_pretrained_weights_are_the_start_and_recorded(tmp_path, caplog):
    """A linear probe on the backbone of another run: weights, record, resuming without the file, and its change."""
    source = train(tmp_path, {"model.freeze": [], "seed": 9}, name="source")
    backbone = {name: value for name, value in load_file(source.weights).items() if name.startswith("backbone.")}
    path = tmp_path / "backbone.safetensors"
    save_file({name.removeprefix("backbone."): value for name, value in backbone.items()} | {"fc": torch.ones(1)}, path)
    overrides = {"model.init": str(path)}
    run = train(tmp_path, overrides)
    weights = load_file(run.weights)
    assert all(torch.equal(weights[name], value) for name, value in backbone.items())
    told = run.info()["pretrained"]
    assert (told["part"], told["loaded"], told["unexpected"]) == ("backbone", len(backbone), ["fc"])
    assert told["sha256"] == run.info()["initial"]["init"]
    assert "not in the model: fc." in caplog.text
    assert train(tmp_path, overrides).info() == run.info()
    path.write_bytes(source.weights.read_bytes())
    with pytest.raises(ConfigError, match=r"started from other weights \(init\)"):
        train(tmp_path, overrides)
    path.unlink()
    assert train(tmp_path, overrides).load() is not None
    run.weights.unlink()  # unfinished: the checkpoint has everything
    again = train(tmp_path, overrides)
    assert all(torch.equal(load_file(again.weights)[name], value) for name, value in weights.items())
    assert again.info()["pretrained"] == told
    with pytest.raises(FileError, match="There are no weights"):
        train(tmp_path, overrides, name="new")
