"""The information plane while training: what hooks capture, known answers, and that looking disturbs nothing."""

import math

import pytest
import torch
from torch import nn

import isthmus
from isthmus.core.errors import ConfigError
from isthmus.data.images import ImageData, Split
from isthmus.training.callbacks.activations import LOGITS, activations, layers_of
from isthmus.training.callbacks.information_plane import InformationPlane

RECIPE = {
    "name": "plane",
    "data": {"name": "digits", "classes": ["3", "7"], "train_limit": 200},
    "model": {"backbone": {"name": "mlp", "hidden": [16, 8], "activation": "tanh", "batch_norm": True}},
    "objective": "deterministic",
    "training": {
        "epochs": 4,
        "batch_size": 50,
        "log_every": 2,
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0},
        "callbacks": [{"name": "information_plane", "samples": 100, "bins": 10, "every": 2}],
    },
}


class Net(nn.Module):
    """Two layers, the first of them used twice, and an activation in place."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.second = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)
        self.drop, self.inplace = nn.Dropout(), nn.ReLU(inplace=True)

    def forward(self, images):
        hidden = self.act(self.first(images.flatten(1)))
        hidden = self.act(self.first(self.drop(hidden)))
        return self.inplace(self.second(hidden))


def test_hooks_capture_what_layers_answer():
    torch.manual_seed(0)
    net, images = Net().train(), torch.rand(7, 1, 2, 2)
    net.first.eval()
    found = activations(net, images, batch_size=3)
    flat = images.flatten(1)
    hidden = net.first(flat).relu()
    again = net.first(hidden).relu()
    assert list(found) == ["act", "act.2", "inplace", LOGITS]
    assert torch.allclose(found["act"], hidden)
    assert torch.allclose(found["act.2"], again)
    assert torch.allclose(found[LOGITS], net.second(again).relu())
    assert net.drop.training
    assert not net.first.training
    assert not any(module._forward_hooks for module in net.modules())


def test_an_activation_in_place_does_not_change_what_was_heard_before_it():
    torch.manual_seed(0)
    net, images = Net(), torch.rand(5, 1, 2, 2)
    found = activations(net, images, ["second"])
    assert list(found) == ["second", LOGITS]
    assert bool((found["second"] < 0).any())


def test_layers_that_there_are_not_are_refused():
    with pytest.raises(ConfigError, match="Did you mean 'second'"):
        layers_of(Net(), ["seconds"])
    with pytest.raises(ConfigError, match="no module such as nn.ReLU"):
        layers_of(nn.Sequential(nn.Linear(2, 2)))


def made(labels):
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    split = Split(images, labels)
    return ImageData.of("made", split, split, ("a", "b"))


class Brightness(nn.Module):
    """A layer that keeps the pixel, one that keeps nothing, and one that keeps the label."""

    def __init__(self):
        super().__init__()
        self.whole, self.nothing, self.label = nn.Softplus(), nn.ReLU(), nn.Sigmoid()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images):
        pixel = images.flatten(1) * self.weight
        self.whole(pixel)
        self.nothing(-pixel - 1)
        return self.label(((pixel * 255) % 2 > 0.5).float())


def test_layers_with_known_information():
    """64 images, of which an injective layer keeps ln 64, a constant one nothing, and the label one bit of both."""
    labels = torch.arange(64) % 2
    said = InformationPlane(samples=64, bins=100).build(Brightness(), made(labels), 0).end_epoch()
    assert said["layers"]["whole"] == pytest.approx([6.0, 1.0])
    assert said["layers"]["nothing"] == pytest.approx([0.0, 0.0])
    assert said["layers"]["label"] == pytest.approx([1.0, 1.0])
    assert said["label_entropy_bits"] == pytest.approx(1.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return isthmus.train(RECIPE, out=tmp_path_factory.mktemp("plane") / "run", progress=False)


def test_a_run_says_where_its_layers_are(run):
    found = [line["observed"]["information_plane"] for line in run.metrics() if "observed" in line]
    assert len(found) == 2
    for said in found:
        assert len(said["layers"]) == 3  # two hidden layers and the logits
        for i_xt, i_ty in said["layers"].values():
            assert 0 <= i_ty <= said["label_entropy_bits"] + 1e-9
            assert i_ty <= i_xt + 1e-9 <= math.log2(said["samples"]) + 2e-9


def test_looking_changes_nothing(run, tmp_path):
    plain = isthmus.train(RECIPE, {"training.callbacks": ()}, out=tmp_path / "run", progress=False)
    first, second = run.load().state_dict(), plain.load().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_layer_that_is_not_there_is_said_before_anything_is_written(tmp_path):
    observed = [{"name": "information_plane", "layers": ["nowhere"]}]
    with pytest.raises(ConfigError, match="unknown layer 'nowhere'|layer 'nowhere'"):
        isthmus.train(RECIPE, {"training.callbacks": observed}, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
