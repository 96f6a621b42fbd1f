"""Objectives on pairs: what they are made of, exactly; and the models that learn by them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import isthmus
from isthmus.core import config
from isthmus.core.errors import ConfigError, DataError, ModelError
from isthmus.information.codes import Codes
from isthmus.information.gaussians import DiagonalGaussian, FullGaussian, IdentityGaussian, side_by_side

K, STEPS, FEATURES = 7, 4, 6
X = torch.randn(K, STEPS, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
PARTNER = torch.randn(K, STEPS, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
FAMILIES = ("identity", "diagonal", "full")
OBJECTIVES = (
    "predictive",
    {"name": "predictive", "bidirectional": True},
    "denoising",
    {"name": "denoising", "bidirectional": False},
    "multiscale",
)


def front(width=2 * STEPS):
    return nn.Sequential(nn.Flatten(), nn.Linear(width, FEATURES), nn.Tanh())


def model(objective="predictive", covariance="diagonal", dim=3, samples=2, **options):
    torch.manual_seed(0)
    levels = options.get("levels", 2 if objective == "multiscale" else 1)
    own = front(2 * STEPS // options.get("dilation", 2) ** (levels - 1))
    net = isthmus.paired(
        own,
        front(),
        objective,
        dim,
        features=FEATURES,
        partner_features=FEATURES,
        options={"covariance": covariance, "samples": samples, **options},
    ).double()
    with torch.no_grad():  # scales that depend on the features, as after some training
        for name, value in net.named_parameters():
            if "project" in name:
                value.add_(0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))))
    return net


def loss(net, seed=3, rho=None):
    return net.loss(X, PARTNER, rho, torch.Generator().manual_seed(seed))


def by(name, net, rho=None, seed=3, **options):
    """Another objective on the very same codes."""
    codes = net.codes(X, PARTNER, torch.Generator().manual_seed(seed))
    chosen = config.component("objectives", {"name": name, **options})
    return chosen.terms(codes, torch.arange(K), rho)


@pytest.mark.parametrize("kl", ["closed", "sampled"])
@pytest.mark.parametrize("covariance", FAMILIES)
def test_predictive_is_catgen_on_past_and_future(covariance, kl):
    net = model({"name": "predictive", "kl": kl, "rho": 1.5}, covariance)
    found, expected = loss(net), by("catgen", net, kl=kl, rho=1.5)
    for name in ("total", "ce", "residual", "i_yz_lower", "accuracy", "rate_lower", "rate_upper"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("name", ["predictive", "denoising"])
@pytest.mark.parametrize("covariance", FAMILIES)
def test_both_ways_are_bidirectional_ceb_on_pairs(covariance, name):
    net = model({"name": name, "bidirectional": True, "rho": 0.5}, covariance)
    found, expected = loss(net), by("bidirectional", net, rho=0.5)
    for field in ("total", "ce", "residual", "reverse_ce", "reverse_residual"):
        torch.testing.assert_close(getattr(found, field), getattr(expected, field))


def test_both_ways_are_the_sum_of_each():
    """One way of denoising is the half of the noisy example; the other half is predictive CEB's form."""
    net = model()
    both, forth, back = by("denoising", net), by("predictive", net), by("denoising", net, bidirectional=False)
    torch.testing.assert_close(both.total, forth.total + back.total)
    torch.testing.assert_close(both.reverse_ce, back.ce)
    torch.testing.assert_close(both.reverse_residual, back.residual)


def test_without_noise_both_encoders_see_the_same():
    """X' = X, e = b: the residuals are 0, and both ways are one expectation (equal noise, equal terms)."""
    net = model("denoising")
    net.partner_front, net.partner_encoder = net.front, net.encoder
    codes = net.codes(X, X, torch.Generator().manual_seed(3))
    mirrored = Codes(
        codes.encoder.sample(codes.label_noise),
        codes.logits,
        None,
        codes.encoder,
        codes.backward,
        None,
        codes.label_noise,
        noise=codes.label_noise,
    )
    chosen = config.component("objectives", "denoising")
    found = chosen.terms(mirrored, torch.arange(K))
    assert found.residual.item() == pytest.approx(0.0, abs=1e-12) == found.reverse_residual.item()
    torch.testing.assert_close(found.ce, found.reverse_ce)
    torch.testing.assert_close(found.total, 2 * found.ce)


@pytest.mark.parametrize("covariance", FAMILIES)
def test_one_scale_is_predictive_ceb(covariance):
    one, plain = model("multiscale", covariance, levels=1), model("predictive", covariance)
    one.load_state_dict(plain.state_dict())
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    torch.testing.assert_close(
        one.loss(X, PARTNER, 1.0, generators[0]).total, plain.loss(X, PARTNER, 1.0, generators[1]).total
    )
    torch.testing.assert_close(one(X), plain(X))
    torch.testing.assert_close(one.scores(X, PARTNER), plain.scores(X, PARTNER))


@pytest.mark.parametrize("covariance", FAMILIES)
def test_scales_add_up_and_each_is_predictive_ceb(covariance):
    net = model({"name": "multiscale", "rho": 1.0, "offsets": (0.0, 0.5, -0.5)}, covariance, levels=3)
    found = loss(net)
    codes = net.codes(X, PARTNER, torch.Generator().manual_seed(3)).levels
    assert [level.samples.shape[-1] for level in codes] == [4 * 3, 2 * 3, 3]
    for level, own, rho in zip(codes, found.levels, (1.0, 1.5, 0.5), strict=True):
        ratio = level.encoder.log_prob(level.samples) - level.backward.log_prob(level.samples)
        scores = torch.stack([level.backward.log_prob(z[:, None]) for z in level.samples])
        ce = -torch.log_softmax(scores, -1).diagonal(dim1=-2, dim2=-1).mean()
        torch.testing.assert_close(own.ce, ce)
        sampled = by_level(level, rho)
        torch.testing.assert_close(sampled.total, ce + math.exp(-rho) * ratio.mean())
        assert own.weight == pytest.approx(math.exp(-rho))
    torch.testing.assert_close(found.total, sum(own.total for own in found.levels))
    assert found.ce is found.levels[-1].ce
    assert found.rate_lower is found.levels[0].rate_lower


def by_level(level, rho):
    chosen = config.component("objectives", {"name": "predictive", "kl": "sampled", "rho": rho})
    return chosen.terms(level, torch.arange(K))


def test_every_scale_sees_its_window_alone():
    """The last code of level i depends on the last 2^i blocks, and the highest level's on all of them."""
    net = model("multiscale", levels=3, samples=1)
    past = X.clone().requires_grad_()
    lowest, middle, highest = net.codes(past, PARTNER, torch.Generator().manual_seed(3)).levels
    for level, seen in ((lowest, 1), (middle, 2), (highest, 4)):
        (gradient,) = torch.autograd.grad(level.encoder.mean[..., -3:].sum(), past, retain_graph=True)
        assert (gradient.abs().sum((0, 2)) > 0).tolist() == [False] * (STEPS - seen) + [True] * seen


def test_lower_scales_learn_from_the_terms_of_higher_ones():
    net = model("multiscale")
    weight = net.encoder.project.weight
    first, second = loss(net).levels
    assert torch.autograd.grad(second.total, weight, retain_graph=True)[0].abs().sum() > 0
    assert all(
        gradient is None
        for gradient in torch.autograd.grad(first.total, list(net.upper.parameters()), allow_unused=True)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_side_by_side_is_independent(family):
    """The log-density of the whole is the sum over its parts, and so are samples."""
    mean = torch.randn(3, 5, 2, 4, dtype=torch.float64)
    factor = torch.tril(0.3 * torch.randn(3, 5, 2, 4, 4, dtype=torch.float64), -1) + torch.eye(4)
    parts = {
        "identity": IdentityGaussian(mean),
        "diagonal": DiagonalGaussian(mean, 0.2 * mean),
        "full": FullGaussian(mean, factor),
    }[family]
    whole, z = side_by_side(parts), torch.randn(3, 5, 2, 4, dtype=torch.float64)
    torch.testing.assert_close(whole.log_prob(z.flatten(-2)), parts.log_prob(z).sum(-1))
    torch.testing.assert_close(whole.sample(z.flatten(-2)), parts.sample(z).flatten(-2))
    assert whole.dim == 8


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("covariance", FAMILIES)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_all_that_is_learned_gets_finite_gradients(objective, covariance, samples):
    net = model(objective, covariance, samples=samples)
    found = loss(net)
    assert all(math.isfinite(value) for value in found.scalars().values())
    assert found.total.dtype == torch.float64
    assert found.i_yz_lower.item() == pytest.approx(math.log(K) - found.ce.item())
    assert float(found.rate_lower) <= float(found.rate_upper)
    found.total.backward()
    for name, value in net.named_parameters():
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name
    assert net(X).shape == (K, 3)
    assert net.scores(X, PARTNER[:4]).shape == (K, 4)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_a_single_pair_tells_nothing_and_breaks_nothing(objective):
    net = model(objective)
    found = net.loss(X[:1], PARTNER[:1])
    assert found.ce.item() == pytest.approx(0.0, abs=1e-12) == found.i_yz_lower.item()
    assert float(found.accuracy) == 1.0
    assert found.rate_upper is None
    assert math.isfinite(found.total.item())


def test_variances_start_at_one_whatever_the_features():
    torch.manual_seed(0)
    net = isthmus.paired(nn.Flatten(), None, dim=3, features=2 * STEPS, options={"covariance": "diagonal"})
    for given in (X.float(), 1e3 * X.float()):
        torch.testing.assert_close(net.encode(given).std, torch.ones(K, 3))
        torch.testing.assert_close(net.encode_partner(given).std, torch.ones(K, 3))


def test_partners_of_the_same_kind_may_share_a_front():
    net = isthmus.paired(front(), None, "denoising", features=FEATURES)
    assert net.front is net.partner_front
    assert net.encoder is not net.partner_encoder


@pytest.mark.parametrize(
    ("x", "partner", "message"),
    [
        (X, PARTNER[:3], "got 7 examples and 3 partners"),
        (X[:0], PARTNER[:0], "one partner for each example"),
        (X * math.nan, PARTNER, "The examples hold NaN"),
        (X, PARTNER / 0.0, "Their partners hold NaN or infinities"),
    ],
)
def test_bad_pairs_are_explained(x, partner, message):
    with pytest.raises(DataError, match=message):
        model().loss(x, partner)


def test_windows_that_cannot_be_cut_are_explained():
    with pytest.raises(DataError, match="multiple of 4 steps"):
        model("multiscale", levels=3).loss(X[:, :3], PARTNER)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "ceb"}, "learns from labels"),
        ({"objective": "predictve"}, "Did you mean 'predictive'"),
        ({"levels": 2}, "hierarchical and multiscale have several levels"),
        ({"objective": "multiscale", "levels": 0}, "got 0"),
        ({"objective": {"name": "multiscale", "offsets": [0.0]}}, "1 offsets of ρ for 2 levels"),
        ({"dim": 0}, "1 or more"),
    ],
)
def test_what_cannot_be_built_is_explained(options, message):
    direct = {name: options[name] for name in ("objective", "dim") if name in options}
    rest = {name: value for name, value in options.items() if name not in direct}
    with pytest.raises(ConfigError, match=message):
        isthmus.paired(front(), front(), features=FEATURES, partner_features=FEATURES, **direct, options=rest)


def test_fronts_must_give_features():
    net = isthmus.paired(nn.Identity(), front(), features=2, partner_features=FEATURES).double()
    with pytest.raises(ModelError, match=r"The front gives \(7, 4, 2\)"):
        net.loss(X, PARTNER)
    with pytest.raises(ModelError, match="number of features"):
        isthmus.paired(nn.Flatten())


@pytest.mark.parametrize("name", ["predictive", "denoising", "multiscale"])
def test_classifiers_do_not_learn_from_pairs(name):
    with pytest.raises(ConfigError, match="use isthmus.paired"):
        isthmus.bottleneck(nn.Flatten(), 3, name, 2, features=4)
