"""A dry run says what would be trained and what it costs, and writes nothing."""

import pytest
import torch
import yaml

from isthmus.core.errors import ConfigError
from isthmus.core.recipe import load_recipe
from isthmus.training import dry_run as module
from isthmus.training.dry_run import dry_run
from tests.cli.commands import isthmus

RECIPE = {
    "name": "dry",
    "data": {"name": "digits", "train_limit": 320, "test_limit": 20},
    "model": {"backbone": {"name": "mlp", "hidden": [32, 16]}, "dim": 4, "covariance": "diagonal"},
    "objective": "ceb",
    "training": {"epochs": 3, "batch_size": 64},
}
MLP = 64 * 32 + 32 + 32 * 16 + 16
ENCODER, CLASSIFIER, BACKWARD = 16 * 8 + 8, 4 * 10 + 10, 10 * 8 + 8  # means and deviations of a code of 4
ALL = MLP + ENCODER + CLASSIFIER + BACKWARD


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.05)


def plan(**overrides):
    return dry_run(load_recipe(RECIPE, overrides))


def test_sizes_are_those_of_the_network():
    found = plan()
    assert found.shapes == {"input": (64, 1, 8, 8), "features": (64, 16), "code": (64, 4), "logits": (64, 10)}
    assert found.parameters == found.trained == ALL
    assert found.memory["gradients"] == 4 * ALL
    assert 4 * ALL <= found.memory["weights"] <= 4 * ALL + 1000  # and small buffers
    assert 8 * ALL <= found.memory["optimizer"] <= 8 * ALL + 100  # two moments of Adam, and step counters
    assert found.steps_per_epoch == 5
    assert found.timed >= 1
    assert found.epoch_seconds == pytest.approx(5 * found.step_seconds)


def test_frozen_layers_have_neither_gradients_nor_moments():
    found = plan(**{"model.freeze": ["backbone"]})
    assert found.trained == ALL - MLP
    assert found.memory["gradients"] == 4 * (ALL - MLP)
    assert found.memory["optimizer"] < 8 * (ALL - MLP) + 100


def test_activations_grow_with_the_part_of_a_batch_and_the_average_with_the_weights():
    whole, half = plan(), plan(**{"training.accumulate": 2, "training.ema": 0.9})
    assert whole.memory["activations"] > 64 * (64 + 32 + 16) * 4  # the images and the outputs of the hidden layers
    assert 0.45 < half.memory["activations"] / whole.memory["activations"] < 0.55
    assert half.memory["optimizer"] - whole.memory["optimizer"] == 4 * ALL


def test_one_of_several_processes_is_measured():
    found = plan(**{"training.devices": 2})
    assert found.shapes["input"][0] == 32
    assert found.steps_per_epoch == 5
    assert "(one process of 2)" in found.text()


def test_the_command_prints_recipe_and_facts_and_writes_nothing(tmp_path):
    path = tmp_path / "dry.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    before = torch.get_rng_state()
    done = isthmus("train", str(path), "objective.rho=2", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    recipe, facts = done.stdout.split("\n\n", 1)
    assert load_recipe(yaml.safe_load(recipe)) == load_recipe(RECIPE, {"objective.rho": 2})
    assert "code:       64 × 4" in facts
    assert f"parameters: {ALL:,}, of which {ALL:,} are trained" in facts
    assert [line.partition(":")[0] for line in facts.splitlines()][-3:] == ["step", "epoch", "run"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["dry.yaml"]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_faulty_recipe_is_found():
    with pytest.raises(ConfigError, match="has no rho"):
        plan(**{"objective": "deterministic", "training.rho_schedule": "ceb_001"})
