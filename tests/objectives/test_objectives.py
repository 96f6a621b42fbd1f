"""Objectives from distributions alone: values, limits, gradients, and the bounds they report."""

import math
from dataclasses import replace

import pytest
import torch

from isthmus.core import config
from isthmus.core.errors import ConfigError
from isthmus.core.tradeoff import Rho
from isthmus.information.codes import Codes
from isthmus.information.gaussians import IdentityGaussian, kl
from isthmus.information.mixtures import Mixture, uniform_mixture

N, DIM, CLASSES, SAMPLES = 64, 5, 4, 3


def encoded(seed: int = 0, samples: int = SAMPLES, marginal=None) -> tuple[Codes, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mean = normal(N, DIM).requires_grad_()
    encoder = IdentityGaussian(mean)
    noise = normal(samples, N, DIM)
    z = encoder.sample(noise)
    codes = Codes(
        z,
        z @ normal(DIM, CLASSES),
        encoder=encoder,
        backward=IdentityGaussian(normal(CLASSES, DIM)),
        marginal=marginal or IdentityGaussian(torch.zeros(DIM, dtype=torch.float64)),
        noise=noise,
    )
    return codes, torch.randint(CLASSES, (N,), generator=generator), mean


def terms(name: str, codes: Codes, labels: torch.Tensor, rho: float | None = None, **options):
    chosen = config.component("objectives", {"name": name, **options})
    return chosen.terms(codes, labels, rho)


def test_ceb_is_its_equation():
    codes, labels, _ = encoded()
    found = terms("ceb", codes, labels, rho=1.5)
    ce = -torch.log_softmax(codes.logits, -1).gather(-1, labels.expand(SAMPLES, -1).unsqueeze(-1)).mean()
    rex = kl(codes.encoder, codes.backward[labels]).mean()
    torch.testing.assert_close(found.total, ce + math.exp(-1.5) * rex)
    torch.testing.assert_close(found.residual, rex)
    torch.testing.assert_close(found.i_yz_lower, (math.log(CLASSES) - ce).detach())


def test_vib_is_its_equation():
    codes, labels, _ = encoded()
    found = terms("vib", codes, labels, rho=1.5)
    rate = kl(codes.encoder, codes.marginal).mean()
    torch.testing.assert_close(found.total, found.ce + rate / (1 + math.exp(1.5)))
    torch.testing.assert_close(found.rate, 0.5 * codes.encoder.mean.square().sum(-1).mean())


@pytest.mark.parametrize("name", ["vib", "ceb"])
def test_sampled_information_averages_to_the_closed_form(name):
    codes, labels, _ = encoded(samples=20_000)
    field = {"vib": "rate", "ceb": "residual"}[name]
    sampled = getattr(terms(name, codes, labels, kl="sampled"), field).item()
    assert sampled == pytest.approx(getattr(terms(name, codes, labels), field).item(), abs=0.02)


@pytest.mark.parametrize("name", ["vib", "ceb"])
def test_without_a_bottleneck_the_loss_is_the_cross_entropy(name):
    """Identity 12: ρ → ∞, even if the information overflows."""
    codes, labels, mean = encoded()
    codes = replace(codes, encoder=IdentityGaussian(mean * 1e200))
    found = terms(name, codes, labels, rho=math.inf)
    torch.testing.assert_close(found.total, found.ce)
    assert torch.isfinite(found.total)


@pytest.mark.parametrize(("name", "factor"), [("ceb", math.exp(2.0)), ("vib", 1 + math.exp(2.0))])
def test_the_rate_form_is_the_same_loss_scaled(name, factor):
    """Identity 12: normalize="rate" is the loss times e^ρ (CEB) or 1 + e^ρ (VIB)."""
    codes, labels, _ = encoded()
    given = config.component("objectives", {"name": name, "rho": 2.0, "normalize": "rate"})
    torch.testing.assert_close(given.terms(codes, labels).total, factor * terms(name, codes, labels, rho=2.0).total)
    # on a schedule's way there the factor stays, so that a start without information does not explode
    torch.testing.assert_close(
        given.terms(codes, labels, math.inf).total, factor * terms(name, codes, labels, rho=math.inf).total
    )


def test_deterministic_reports_no_rate():
    codes, labels, _ = encoded(samples=1)
    found = terms("deterministic", Codes(codes.samples, codes.logits), labels)
    torch.testing.assert_close(found.total, found.ce)
    assert found.rate is found.residual is found.rate_lower is None
    assert set(found.scalars()) == {"total", "ce", "accuracy", "weight", "i_yz_lower"}


def test_the_label_entropy_is_that_of_the_prior():
    codes, labels, _ = encoded()
    prior = torch.tensor([0.7, 0.3, 0.0, 0.0], dtype=torch.float64).log()
    found = terms("ceb", replace(codes, log_prior=prior, marginal=None), labels)
    entropy = -(0.7 * math.log(0.7) + 0.3 * math.log(0.3))
    assert found.i_yz_lower.item() == pytest.approx(entropy - found.ce.item())


def test_a_batch_of_one_has_no_upper_bound():
    codes, labels, _ = encoded()
    first = {"samples": codes.samples[:, :1], "logits": codes.logits[:, :1], "noise": codes.noise[:, :1]}
    one = replace(codes, **first, encoder=codes.encoder[:1], marginal=None)
    assert terms("ceb", one, labels[:1]).rate_upper is None


def test_predictions_do_not_take_the_gradient_from_the_loss():
    codes, labels, mean = encoded()
    with torch.no_grad():
        codes.predictions()
    assert torch.autograd.grad(codes.cross_entropy(labels).sum(), mean)[0].abs().sum() > 0


def test_class_mixture_rate_is_an_upper_bound_and_carries_no_gradient():
    codes, labels, _ = encoded()
    found = terms("ceb", replace(codes, marginal=None), labels)
    expected = codes.encoder.log_prob(codes.samples[0]) - uniform_mixture(codes.backward).log_prob(codes.samples[0])
    torch.testing.assert_close(found.rate, expected.mean().detach())
    assert not found.rate.requires_grad


@pytest.mark.parametrize("marginal", [True, False])
def test_identity_3_of_the_objectives(marginal):
    """Identity 3: with c(y|z) ∝ p(y)·b(z|y) and m = Σ p(y)·b(z|y), R − ReX = H(Y) − ce and the gap is 0.

    In the form of Fischer 2020 (normalize="rate"), VIB at ρ = 0 less CEB at ρ = 0 is H(Y) exactly.
    """
    codes, _, _ = encoded(samples=SAMPLES if marginal else 1)
    prior = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64).log()
    labels = torch.tensor([0] * 32 + [1] * 16 + [2] * 8 + [3] * 8)
    mixture = Mixture(codes.backward, prior)
    logits = codes.backward.log_prob(codes.samples.unsqueeze(-2)) + prior
    consistent = replace(codes, logits=logits, log_prior=prior, marginal=mixture if marginal else None)

    def at_zero(name):
        chosen = config.component("objectives", {"name": name, "rho": 0, "kl": "sampled", "normalize": "rate"})
        return chosen.terms(consistent, labels)

    ceb = at_zero("ceb")
    entropy = 0.5 * math.log(2) + 0.25 * math.log(4) + 0.25 * math.log(8)
    values = ceb.scalars()
    assert values["rate"] - values["residual"] == pytest.approx(entropy - values["ce"], abs=4e-12)
    assert values["consistency_gap"] == pytest.approx(0.0, abs=4e-12)
    if marginal:
        assert float((at_zero("vib").total - ceb.total).detach()) == pytest.approx(entropy, abs=4e-12)


def test_the_gap_is_between_the_two_accounts_of_what_codes_tell_of_labels():
    codes, labels, _ = encoded()
    found = terms("ceb", codes, labels)
    log_b = codes.backward[labels].log_prob(codes.samples)
    log_c = torch.log_softmax(codes.logits, -1).gather(-1, labels.expand(SAMPLES, -1)[..., None])[..., 0]
    expected = (log_b - codes.marginal.log_prob(codes.samples)).mean() - (log_c + math.log(CLASSES)).mean()
    torch.testing.assert_close(found.consistency_gap, expected.detach())
    torch.testing.assert_close(found.consistency, expected.detach().abs())
    assert terms("vib", codes, labels).consistency is None  # it has no b(z|y) of its own to compare with


def test_a_marginal_beside_ceb_cannot_touch_the_encoder():
    weights = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    parts = IdentityGaussian(torch.randn(6, DIM, dtype=torch.float64))
    codes, labels, mean = encoded(marginal=Mixture(parts, torch.log_softmax(weights, 0)))
    found = terms("ceb", codes, labels)
    assert torch.autograd.grad(found.marginal_nll, mean, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(found.total, weights, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(found.marginal_nll, weights)[0].abs().sum() > 0


@pytest.mark.parametrize("name", ["vib", "ceb"])
def test_only_the_total_carries_gradients(name):
    codes, labels, mean = encoded()
    found = terms(name, codes, labels)
    assert torch.autograd.grad(found.total, mean)[0].abs().sum() > 0
    for field in ("accuracy", "i_yz_lower", "rate_lower", "rate_upper"):
        assert not getattr(found, field).requires_grad


@pytest.mark.parametrize(
    ("name", "given", "rho"),
    [
        ("vib", {"rate_weight": 1e-3}, Rho.from_rate_weight(1e-3).value),
        ("ceb", {"residual_weight": 0.5}, math.log(2)),
        ("ceb", {"relevance_weight": 3}, math.log(2)),
        ("ceb", {"rho": math.inf}, math.inf),
    ],
)
def test_constructors_of_the_knob(name, given, rho):
    assert config.component("objectives", {"name": name, **given}).rho == pytest.approx(rho)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rho": 1, "rate_weight": 0.1}, "give only one of rho"),
        ({"rate_weight": 2}, "strictly between 0 and 1"),
        ({"rate_weight": "lots"}, "must be a number"),
        ({"beta": 0.1}, "there is no beta; .* rate_weight"),
        ({"rho": math.nan}, "nan"),
        ({"rho": math.inf, "normalize": "rate"}, "divides by the weight"),
    ],
)
def test_wrong_trade_offs_are_explained(given, message):
    with pytest.raises(ConfigError, match=message):
        config.component("objectives", {"name": "vib", **given})


def test_unknown_objectives_get_a_suggestion():
    with pytest.raises(ConfigError, match="Did you mean 'ceb'"):
        config.component("objectives", "cebb")
