"""Early stopping on a validation split: which epoch it keeps, and that resuming does not change it."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import isthmus
from isthmus.core.errors import ConfigError, DataError
from isthmus.data.images import as_float
from isthmus.data.loading import held_out, load
from isthmus.training.run import Run
from tests.training.test_resume import stop_at

RECIPE = {
    "name": "stopping",
    "data": {"name": "digits", "train_limit": 400},
    "model": {"backbone": {"name": "mlp", "hidden": [32]}, "dim": 4},
    "objective": {"name": "ceb", "rho": 4},
    "training": {
        "epochs": 30,
        "batch_size": 64,
        "checkpoint_every": 4,
        "optimizer": {"lr": 0.03},
        "ema": 0.5,
        "validation": 0.2,
        "early_stopping": {"patience": 2, "metric": "ce"},
        "snapshots": [5 * epoch for epoch in range(1, 31)],  # 320 of 400 images are 5 batches
    },
}


def train(out, overrides=()) -> Run:
    return isthmus.train(RECIPE, overrides, out=out, progress=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    return train(tmp_path_factory.mktemp("whole") / "run")


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_it_stops_after_the_patience_and_keeps_the_best_epoch(whole):
    result = whole.info()["result"]
    losses = [line["validation_ce"] for line in whole.metrics() if "validation_ce" in line]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 30
    assert (result["best_epoch"], result["step"], result["last_step"]) == (best + 1, 5 * (best + 1), 5 * len(losses))
    assert same(whole.load().state_dict(), whole.load(step=result["step"]).state_dict())
    assert not same(whole.load().state_dict(), whole.load(step=result["last_step"]).state_dict())
    assert result["validation_ce"] == min(losses)


def test_the_numbers_are_those_of_images_that_training_has_not_seen(whole):
    data = load(RECIPE["data"])
    kept, held = held_out(data, 0.2)
    images = [{image.numpy().tobytes() for image in split.images} for split in (kept.train, held)]
    assert (len(kept.train), len(held)) == (320, 80)
    assert not images[0] & images[1]
    assert held.labels.bincount().tolist() == [8] * 10
    logits, result = whole.load()(as_float(held.images)).detach(), whole.info()["result"]
    assert float((logits.argmax(1) == held.labels).double().mean()) == result["validation_accuracy"]
    assert float(nn.functional.cross_entropy(logits.double(), held.labels)) == pytest.approx(result["validation_ce"])


def test_the_test_split_does_not_decide(whole, tmp_path):
    """With other test images the run ends at the same step with the same weights."""
    other = train(tmp_path / "run", {"data.test_limit": 10})
    assert same(load_file(other.weights), load_file(whole.weights))
    assert other.info()["result"]["last_step"] == whole.info()["result"]["last_step"]


def test_stopped_it_resumes_bitwise_and_stops_at_the_same_step(whole, tmp_path, monkeypatch):
    stop_at(whole.info()["result"]["last_step"] - 2, monkeypatch)
    with pytest.raises(RuntimeError, match="plug"):
        train(tmp_path / "run")
    monkeypatch.undo()
    run = train(tmp_path / "run")
    assert same(load_file(run.weights), load_file(whole.weights))
    assert run.metrics() == whole.metrics()
    assert run.info()["result"] == whole.info()["result"]
    run.weights.unlink()  # ended, and evaluated from its checkpoint
    assert same(load_file(train(tmp_path / "run").weights), load_file(whole.weights))


def test_epochs_count_once_rho_has_reached_its_target(tmp_path):
    overrides = {"training.rho_schedule": {"start": 100, "epochs": 6}, "training.epochs": 8, "training.snapshots": []}
    run = train(tmp_path / "run", overrides)
    assert run.info()["result"]["best_epoch"] >= 6


def test_validation_alone_is_only_measured(tmp_path):
    run = train(tmp_path / "run", {"training.early_stopping": None, "training.epochs": 2, "training.snapshots": []})
    assert run.info()["result"]["step"] == 10
    assert 0 <= run.info()["result"]["validation_accuracy"] <= 1
    assert "best_epoch" not in run.info()["result"]


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"early_stopping needs a validation split: set training.validation=0.1"):
        train(tmp_path / "run", {"training.validation": None})
    with pytest.raises(DataError, match="validate on more"):
        train(tmp_path / "run", {"training.validation": 0.001})
