"""The offset in the softplus of an encoder's σ: its effect, and options that do not go with it."""

import math

import pytest
import torch
from torch import nn

import isthmus
from isthmus.core.errors import ConfigError


def encoder(offset, covariance="diagonal", **options):
    torch.manual_seed(0)
    objective = options.pop("objective", "vib")
    return isthmus.bottleneck(
        nn.Flatten(),
        3,
        objective,
        4,
        features=6,
        options={"covariance": covariance, "encoder_std_offset": offset, **options},
    )


@pytest.mark.parametrize("offset", [0.0, -5.0, 2.0])
def test_sigma_is_the_softplus_of_the_layer_plus_the_offset(offset):
    model = encoder(offset)
    images = torch.rand(5, 1, 2, 3)
    raw = model.encoder.project(images.flatten(1))[:, 4:]
    assert raw.abs().max() > 0.1, "its weights are as Glorot has them"
    expected = torch.nn.functional.softplus(raw.double() + offset)
    torch.testing.assert_close(model.encode(images).log_std.exp().double(), expected, rtol=1e-5, atol=0)


def test_without_one_a_diagonal_encoder_has_that_of_alemi_et_al():
    images = torch.rand(5, 1, 2, 3)
    torch.testing.assert_close(encoder(None).encode(images).log_std, encoder(-5.0).encode(images).log_std)


def test_of_a_full_covariance_it_is_the_diagonal_of_the_factor():
    model = encoder(0.0, "full")
    factor = model.encode(torch.zeros(1, 1, 2, 3)).factor[0]
    torch.testing.assert_close(factor.diagonal(), torch.full((4,), math.log(2.0)), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"offset": 30.0}, "encoder_std_offset"),
        ({"offset": float("nan")}, "encoder_std_offset"),
        ({"offset": 0.0, "covariance": "identity"}, "'identity' has none"),
        ({"offset": 0.0, "covariance": "isotropic", "objective": "nonlinear_ib"}, "'isotropic' has none"),
        ({"offset": 0.0, "objective": "deterministic"}, "a deterministic code has no σ"),
        ({"offset": 0.0, "encoder_std": 1.0}, "does not go with encoder_std=1"),
        ({"offset": 0.0, "objective": "hierarchical"}, "does not go with levels=2"),
    ],
)
def test_where_it_would_do_nothing_it_is_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        encoder(**options)


def test_a_recipe_has_it():
    from isthmus.core.recipe import load_recipe
    from isthmus.models.factory import build

    recipe = {
        "name": "offset",
        "data": "digits",
        "model": {"backbone": {"name": "mlp", "hidden": [4]}, "dim": 2, "encoder_std_offset": 0.0},
        "objective": "vib",
    }
    assert load_recipe(recipe).model.encoder_std_offset == 0.0
    model = build(load_recipe(recipe), (1, 8, 8), 10)
    assert model.encoder.initial_std == pytest.approx(math.log(2.0))
