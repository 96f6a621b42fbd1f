"""The networks of Guess First: their maps, their starts, and recipes that train them."""

import pytest
import torch
from torch import nn

import isthmus
from isthmus.core.config import component
from isthmus.core.errors import ConfigError


def build(options, shape):
    config = component("backbones", options)
    return config.build(shape)


def sides(net, shape):
    """Height and width of every map on the way, in order, without repetitions."""
    seen, maps = [], torch.zeros(2, *shape)
    for layer in net.maps.eval():
        maps = layer(maps)
        if not seen or seen[-1] != maps.shape[1:]:
            seen.append(tuple(maps.shape[1:]))
    return seen


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("strided_conv", (1, 28, 28), [(32, 14, 14), (64, 7, 7)]),
        ("strided_conv", (1, 8, 8), [(32, 4, 4), (64, 2, 2)]),
        ("strided_conv", (3, 4, 7), [(32, 2, 3), (64, 1, 1)]),
        ("lenet5", (1, 28, 28), [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5)]),
        ("lenet5", (3, 32, 32), [(6, 32, 32), (6, 16, 16), (16, 12, 12), (16, 6, 6)]),
        ("lenet5", (1, 12, 13), [(6, 12, 13), (6, 6, 6), (16, 2, 2), (16, 1, 1)]),
        ("lenet5", (1, 8, 8), [(6, 8, 8), (6, 4, 4), (16, 4, 4), (16, 2, 2)]),
        ("lenet5", (1, 4, 28), [(6, 4, 28), (6, 2, 14), (16, 2, 14), (16, 1, 7)]),
    ],
)
def test_maps_never_vanish(name, shape, expected):
    net = build(name, shape)
    assert sides(net, shape) == expected
    assert net.eval()(torch.rand(2, *shape)).shape == (2, net.features)


@pytest.mark.parametrize("name", ["strided_conv", "lenet5"])
@pytest.mark.parametrize("shape", [(1, 3, 28), (1, 28, 3), (1, 1, 1)], ids=str)
def test_images_that_are_too_small_are_refused_in_one_sentence(name, shape):
    with pytest.raises(ConfigError, match=rf"{name} halves .* images of {shape[1]}×{shape[2]} are too small.* mlp"):
        build(name, shape)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "strided_conv", "hidden": [0]}, "greater than 0"),
        ({"name": "strided_conv", "widths": [32]}, "widths"),
        ({"name": "strided_conv", "hiden": []}, "Did you mean 'hidden'"),
        ({"name": "lenet5", "width": 2}, "width"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        component("backbones", options)


def test_a_front_without_hidden_layers_gives_the_flattened_maps():
    """The 3,136 numbers that Guess First joins to a label hypothesis; channels first, as flattening orders them."""
    front = build({"name": "strided_conv", "hidden": []}, (1, 28, 28)).eval()
    images = torch.rand(3, 1, 28, 28)
    assert front.features == 64 * 7 * 7
    assert not list(front.head.parameters())
    torch.testing.assert_close(front(images), front.maps(images).flatten(1))
    assert (front(images) >= 0).all()


@pytest.mark.parametrize("name", ["strided_conv", "lenet5"])
def test_weights_start_glorot_uniform_and_biases_at_zero(name):
    torch.manual_seed(0)
    net = build(name, (1, 28, 28))
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) == {"strided_conv": 5, "lenet5": 4}[name]
    for layer in layers:
        fan_in, fan_out = layer.weight[0].numel(), layer.weight[:, 0].numel()
        limit = (6 / (fan_in + fan_out)) ** 0.5
        assert 0.9 * limit < layer.weight.abs().max() <= limit
        assert not layer.bias.any()


@pytest.mark.parametrize("name", ["strided_conv", "lenet5"])
def test_a_recipe_trains_them_on_digits(name, tmp_path):
    recipe = {
        "name": "small",
        "data": "digits",
        "model": {"backbone": name},
        "objective": "deterministic",
        "training": {"epochs": 3, "batch_size": 50, "optimizer": {"lr": 3e-3}},
    }
    run = isthmus.train(recipe, out=tmp_path / name, progress=False)
    assert run.info()["result"]["test_accuracy"] > 0.9
    torch.manual_seed(0)
    images = torch.rand(4, 1, 8, 8)
    model = run.load()
    assert model(images).shape == (4, 10)
    torch.testing.assert_close(model(images[:1]), model(images)[:1], rtol=1e-4, atol=1e-5)
