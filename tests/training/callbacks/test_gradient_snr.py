"""The gradients' SNR: closed forms, agreement with numpy on the covariance's trace, and resuming in mid-epoch."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import isthmus
from isthmus.core.errors import ConfigError
from isthmus.training.callbacks.gradient_snr import GradientSNRState
from isthmus.training.loop import Trainer

RECIPE = {
    "name": "watched",
    "data": {"name": "digits", "train_limit": 320},
    "model": {"backbone": {"name": "mlp", "hidden": [32, 16]}},
    "objective": "deterministic",
    "training": {
        "epochs": 3,
        "batch_size": 32,
        "log_every": 5,
        "checkpoint_every": 4,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0},
        "callbacks": ["gradient_snr"],
    },
}


def watch(gradients, largest=1e6, **options):
    """The callback after steps with these gradients, of a layer whose weights are all 1."""
    layer = nn.Linear(gradients.shape[2], gradients.shape[1], bias=True)
    nn.init.ones_(layer.weight)
    callback = GradientSNRState(layer, largest, **options)
    for gradient in gradients:
        layer.weight.grad = gradient.clone()
        callback.gradients()
    return callback.end_epoch()["weight"], callback


def test_it_is_the_norm_of_the_mean_over_the_root_of_the_covariances_trace():
    gradients = 0.3 + torch.randn(50, 4, 6, generator=torch.Generator().manual_seed(0))
    said, _ = watch(gradients)
    flat = gradients.double().numpy().reshape(50, -1)
    trace = np.trace(np.cov(flat.T, bias=True))
    assert said["snr"] == pytest.approx(np.linalg.norm(flat.mean(0)) / np.sqrt(trace), rel=1e-5)
    assert said["noise"] == pytest.approx(np.linalg.norm(flat.std(0)) / np.sqrt(24), rel=1e-5)
    assert said["signal"] == pytest.approx(np.linalg.norm(flat.mean(0)) / np.sqrt(24), rel=1e-5)


def test_as_printed_the_noise_is_not_divided_by_the_weights():
    """‖mean g‖/‖W‖ over ‖std g‖: smaller by the norm of the weights than the ratio that divides both."""
    gradients = 0.3 + torch.randn(50, 4, 6, generator=torch.Generator().manual_seed(0))
    both, literal = (watch(gradients, normalize_noise=each)[0] for each in (True, False))
    flat = gradients.double().numpy().reshape(50, -1)
    assert literal["signal"] == both["signal"]
    assert literal["noise"] == pytest.approx(np.linalg.norm(flat.std(0)), rel=1e-5)
    assert literal["snr"] == pytest.approx(both["snr"] / np.sqrt(24), rel=1e-5)


def test_a_large_mean_does_not_cancel_the_noise():
    """One sum of squares less another would leave nothing of a noise of 10⁻⁴ in float32."""
    noise = 1e-4 * torch.randn(200, 5, 5, generator=torch.Generator().manual_seed(1))
    said, _ = watch(1.0 + noise)
    assert said["noise"] == pytest.approx(float(noise.double().std(0, correction=0).norm()) / 5, rel=0.02)


def test_pure_noise_is_one_over_the_root_of_the_number_of_batches():
    gradients = torch.randn(400, 30, 30, generator=torch.Generator().manual_seed(2))
    said, _ = watch(gradients)
    assert said["snr"] == pytest.approx(1 / 20, rel=0.1)


def test_batches_that_agree_have_the_largest_ratio_and_none_have_none():
    assert watch(torch.ones(5, 3, 3))[0]["snr"] == 1e6
    assert watch(torch.ones(5, 3, 3), largest=10.0)[0]["snr"] == 10.0
    assert watch(torch.zeros(5, 3, 3))[0]["snr"] == 0.0
    assert watch(torch.ones(1, 3, 3))[0]["snr"] is None


def test_an_epoch_does_not_know_the_last():
    gradients = torch.randn(20, 4, 4, generator=torch.Generator().manual_seed(3))
    alone, _ = watch(gradients[10:])
    _, callback = watch(gradients[:10])
    callback.reset()
    (weight,) = callback.weights.values()
    for gradient in gradients[10:]:
        weight.grad = gradient.clone()
        callback.gradients()
    assert callback.end_epoch()["weight"] == pytest.approx(alone, rel=1e-5)


def test_only_weights_that_are_trained_are_watched():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    model[0].weight.requires_grad_(False)
    assert list(GradientSNRState(model, 1.0).weights) == ["2.weight"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return isthmus.train(RECIPE, out=tmp_path_factory.mktemp("whole") / "run", progress=False)


def observed(run):
    return [line["observed"]["gradient_snr"] for line in run.metrics() if "observed" in line]


def test_a_run_says_it_at_the_end_of_every_epoch(whole):
    found = observed(whole)
    assert len(found) == 3
    names = [name for name, p in whole.load().named_parameters() if p.ndim > 1]
    assert list(found[0]) == names
    assert all(each["snr"] > 0 for epoch in found for each in epoch.values())


def test_watching_changes_nothing(whole, tmp_path):
    plain = isthmus.train(RECIPE, {"training.callbacks": ()}, out=tmp_path / "run", progress=False)
    first, second = whole.load().state_dict(), plain.load().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [line for line in whole.metrics() if "observed" not in line] == plain.metrics()


@pytest.mark.parametrize("step", [6, 10, 15])
def test_a_stopped_run_says_the_same(whole, tmp_path, monkeypatch, step):
    """Between two checkpoints in the middle of an epoch, at its end, and in the next."""
    take_step = Trainer._step

    def take_and_stop(self, *arguments):
        take_step(self, *arguments)
        if self.step == step:
            raise RuntimeError("pulled the plug")

    monkeypatch.setattr(Trainer, "_step", take_and_stop)
    with pytest.raises(RuntimeError, match="plug"):
        isthmus.train(RECIPE, out=tmp_path / "run", progress=False)
    monkeypatch.undo()
    run = isthmus.train(RECIPE, out=tmp_path / "run", progress=False)
    assert observed(run) == observed(whole)


def test_it_speaks_as_often_as_it_is_told_and_at_the_end(tmp_path):
    build = [{"name": "gradient_snr", "every": 2}]
    run = isthmus.train(RECIPE, {"training.callbacks": build}, out=tmp_path / "run", progress=False)
    assert [line["epoch"] for line in run.metrics() if "observed" in line] == [1, 2]
    assert json.loads((run.path / "run.json").read_text())["recipe"]["training"]["callbacks"][0]["every"] == 2


def test_observers_that_there_are_not_or_are_there_twice_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'gradient_snr'"):
        isthmus.train(RECIPE, {"training.callbacks": ["gradients_snr"]}, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="gradient_snr"):
        isthmus.train(RECIPE, {"training.callbacks": ["gradient_snr"] * 2}, out=tmp_path / "run")
