"""Hierarchical CEB: CEB at every level, a classifier like any other, and a recipe away."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import isthmus
from isthmus.audits.classifier import adopt
from isthmus.checks import Information
from isthmus.checks.context import Context
from isthmus.core import randomness
from isthmus.core.errors import ConfigError
from isthmus.core.recipe import load_recipe
from isthmus.data.loading import load
from isthmus.information.gaussians import kl
from isthmus.models.hierarchy import Hierarchy
from isthmus.models.modes import StochasticMode
from isthmus.objectives import HierarchicalCEB

N, CLASSES, DIM = 12, 4, 3
IMAGES = torch.rand(N, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N) % CLASSES
FAMILIES = ("identity", "diagonal", "full")


def model(objective="hierarchical", covariance="diagonal", samples=2, **options):
    torch.manual_seed(0)
    given = options.get("classifier")
    own = options.pop("classifier") if isinstance(given, nn.Module) else None
    return isthmus.bottleneck(
        nn.Flatten(),
        CLASSES,
        objective,
        DIM,
        classifier=own,
        features=16,
        options={"covariance": covariance, "samples": samples, **options},
    ).double()


def loss(net, rho=None):
    return net.loss(IMAGES.double(), LABELS, rho, torch.Generator().manual_seed(3))


def by_hand(codes, rho):
    """CEB on one level, from its densities."""
    own = torch.log_softmax(codes.logits, -1).gather(-1, LABELS.expand(len(codes.logits), -1)[..., None])
    information = kl(codes.encoder, codes.backward[LABELS]).mean()
    return -own.mean() + math.exp(-rho) * information


@pytest.mark.parametrize("covariance", FAMILIES)
def test_one_level_is_ceb(covariance):
    one, ceb = (model({"name": name, "rho": 1.0}, covariance) for name in ("hierarchical", "ceb"))
    assert isinstance(one, Hierarchy), "two levels are the default"
    one = model({"name": "hierarchical", "rho": 1.0}, covariance, levels=1)
    assert not isinstance(one, Hierarchy)
    one.load_state_dict(ceb.state_dict())
    found, expected = loss(one), loss(ceb)
    for name, value in expected.scalars().items():
        assert found.scalars()[name] == pytest.approx(value, abs=1e-12), name
    assert torch.equal(found.total, expected.total)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("covariance", FAMILIES)
def test_it_is_its_equation(covariance, samples):
    """Σ_i ce_i + e^-ρ_i·I(Z_{i−1}; Z_i | Y) on samples drawn level by level."""
    net = model({"name": "hierarchical", "rho": 0.5, "offsets": [0.0, 1.0, -1.0]}, covariance, samples, levels=3)
    found = loss(net)
    levels = net.codes(IMAGES.double(), torch.Generator().manual_seed(3)).levels
    expected = [by_hand(codes, rho) for codes, rho in zip(levels, (0.5, 1.5, -0.5), strict=True)]
    torch.testing.assert_close(found.total, sum(expected))
    torch.testing.assert_close(torch.stack([level.total for level in found.levels]), torch.stack(expected))
    for below, above, part in zip(levels, levels[1:], net.above, strict=False):
        torch.testing.assert_close(part.encoder(below.samples).mean, above.encoder.mean)
    assert found.accuracy is found.levels[-1].accuracy
    assert found.residual is found.levels[0].residual
    assert all(math.isfinite(value) for value in found.scalars().values())
    assert {"level_1_ce", "level_3_residual"} <= set(found.scalars())


def test_the_rate_form_is_the_printed_one():
    """normalize="rate" gives Σ_i I(Z_{i−1}; Z_i | Y) + γ_i·ce_i with γ_i = e^ρ_i."""
    net = model({"name": "hierarchical", "rho": 0.5, "offsets": [0.0, 1.0], "normalize": "rate"})
    found = loss(net)
    expected = sum(
        level.residual + math.exp(rho) * level.ce for level, rho in zip(found.levels, (0.5, 1.5), strict=True)
    )
    torch.testing.assert_close(found.total, expected)


def test_a_schedule_moves_all_levels():
    net = model({"name": "hierarchical", "rho": 0.5, "offsets": [0.0, 1.0]})
    assert [level.weight for level in loss(net, 2.0).levels] == pytest.approx([math.exp(-2.0), math.exp(-3.0)])


def test_lower_levels_learn_from_the_terms_of_higher_ones():
    net = model()
    weight = net.encoder.project.weight
    first, second = loss(net).levels
    assert torch.autograd.grad(second.total, weight, retain_graph=True)[0].abs().sum() > 0
    upper = torch.autograd.grad(first.total, list(net.upper.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in upper)


@pytest.mark.parametrize("classifier", ["linear", "mlp", "consistent", "own"])
def test_every_level_has_a_classifier_of_its_own(classifier):
    net = model(classifier=nn.Linear(DIM, CLASSES) if classifier == "own" else classifier, levels=3)
    loss(net).total.backward()
    for name, value in net.named_parameters():
        assert value.grad is not None, name
        assert value.grad.abs().sum() > 0, name
    own = [net.classifier, *(level.classifier for level in net.above)]
    assert len({id(head) for head in own}) == (1 if classifier == "consistent" else 3)


@pytest.mark.parametrize("covariance", FAMILIES)
def test_mean_mode_is_the_stochastic_mode_without_noise(covariance):
    net = model(covariance=covariance, levels=3)
    images = IMAGES.double()
    with torch.no_grad():
        still = net.answer(net.encode(images), torch.zeros(1, N, net.noise_dim, dtype=torch.float64))
        torch.testing.assert_close(net(images), still[0])


def test_the_stochastic_mode_draws_the_chains_that_training_draws():
    net = model(levels=2)
    noise = torch.randn(5, N, net.noise_dim, dtype=torch.float64)
    with torch.no_grad():
        encoded = net.encode(IMAGES.double())
        torch.testing.assert_close(net.answer(encoded, noise), net.draw(encoded, noise).logits)
        mode = StochasticMode(net, samples=4)
        keys = randomness.example_keys(0, torch.arange(N))
        whole, part = mode(IMAGES.double(), keys), mode(IMAGES[3:5].double(), keys[3:5])
    torch.testing.assert_close(whole[3:5], part)
    torch.testing.assert_close(whole.exp().sum(1), torch.ones(N, dtype=torch.float64))


def test_it_fits_the_contract_and_can_be_measured():
    """The check's bounds on I(X;Z) are those of the lowest level, through which alone an image is seen."""
    net = model(samples=1).float().eval()
    adopted = adopt(net, IMAGES)
    assert adopted.bottleneck is net
    assert adopted.stochastic is not None
    images, labels = IMAGES.repeat(20, 1, 1, 1), LABELS.repeat(20)
    images = (images + 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    context = Context(net, images, labels, CLASSES, isthmus.Linf(0.1), adopted.stochastic, net, batch_size=50)
    found = Information().run(context).metrics
    assert set(found.names()) >= {"rate", "residual", "rate_lower", "rate_upper", "i_yz_lower"}
    with torch.no_grad():
        expected = kl(net.encode(images), net.backward_encoder()[labels]).mean()
    assert found.one("residual").value == pytest.approx(float(expected), abs=0.15)
    assert found.one("rate_lower").value <= found.one("rate_upper").value


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        ("ceb", {"levels": 2}, "levels = 2 does not go with the objective 'ceb'"),
        ("hierarchical", {"levels": 0}, "got 0"),
        ({"name": "hierarchical", "offsets": [0, 0, 0]}, {}, "3 offsets of ρ for 2 levels"),
    ],
)
def test_levels_that_cannot_be_are_explained(objective, options, message):
    with pytest.raises(ConfigError, match=message):
        isthmus.bottleneck(nn.Flatten(), CLASSES, objective, DIM, features=16, options=options)


RECIPE = {
    "name": "levels",
    "data": "digits",
    "model": {"backbone": {"name": "mlp", "hidden": [64]}, "dim": 8, "levels": 2},
    "objective": {"name": "hierarchical", "rho": 2},
    "training": {"epochs": 8, "batch_size": 64, "optimizer": {"lr": 1e-2}},
}


def test_a_recipe_trains_saves_and_loads_it(tmp_path):
    """Real digits: the information of both levels about the label is below its maximum, ln 10."""
    run = isthmus.train(RECIPE, out=tmp_path / "run", progress=False)
    last = json.loads(run.metrics_file.read_text("utf-8").splitlines()[-1])
    net, test = isthmus.load(run.path), load(load_recipe(RECIPE).data).test
    assert isinstance(net, Hierarchy)
    with torch.no_grad():
        accuracy = (net(test.images.float() / 255).argmax(1) == test.labels).float().mean()
    assert float(accuracy) == pytest.approx(last["test_accuracy"])
    assert last["test_accuracy"] > 0.9
    for level in (1, 2):
        assert 1.2 < last[f"epoch_level_{level}_i_yz_lower"] < math.log(10)
        assert last[f"epoch_level_{level}_rate_lower"] > last[f"epoch_level_{level}_i_yz_lower"]


def test_recipes_know_levels():
    assert load_recipe(RECIPE).model.levels == 2
    assert HierarchicalCEB().rho == 0.0


@pytest.mark.parametrize("marginal", ["standard", "mixture", "batch", "classes"])
def test_a_marginal_is_that_of_the_lowest_level_and_moves_nothing(marginal):
    net = model(marginal=marginal, components=5)
    plain, beside = loss(model()), loss(net)
    torch.testing.assert_close(beside.total, plain.total)
    assert beside.marginal_nll is not None
    lowest = net.codes(IMAGES.double(), torch.Generator().manual_seed(3)).levels[0]
    rates = lowest.encoder.log_prob(lowest.samples) - lowest.marginal.log_prob(lowest.samples)
    torch.testing.assert_close(beside.rate, rates.mean().detach())


def test_features_themselves_may_be_the_lowest_code():
    net = isthmus.bottleneck(
        nn.Flatten(), CLASSES, "hierarchical", None, features=16, options={"covariance": "identity"}
    )
    assert net.encode(IMAGES).dim == 16
    assert net(IMAGES).shape == (N, CLASSES)


def test_a_recipe_cannot_ask_a_classifier_to_learn_from_pairs(tmp_path):
    with pytest.raises(ConfigError, match="use isthmus.paired"):
        isthmus.train({**RECIPE, "objective": "predictive", "model": {"backbone": "mlp"}}, out=tmp_path / "run")
