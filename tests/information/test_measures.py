"""Measures of a batch per example, against torch.distributions, and the identities of a consistent model."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical

from isthmus.information.codes import Codes
from isthmus.information.gaussians import IdentityGaussian, kl
from isthmus.information.measures import Measures, measure, mni_distance
from isthmus.information.mixtures import uniform_mixture
from tests.information.test_gaussians import FAMILIES, make, reference

N, CLASSES, DIM, SAMPLES = 30, 5, 4, 3
PRIOR = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0], dtype=torch.float64).log()
LABELS = torch.tensor([0] * 12 + [1] * 9 + [2] * 6 + [3] * 3)  # as often as the prior says


def coded(family="full", seed=0, marginal=None, consistent=False, prior=PRIOR, backward=True):
    encoder, classes = make(family, N, seed), make(family, CLASSES, seed + 1)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(SAMPLES, N, DIM, generator=generator, dtype=torch.float64)
    z = encoder.sample(noise)
    weights = torch.randn(DIM, CLASSES, generator=generator, dtype=torch.float64)
    logits = classes.log_prob(z.unsqueeze(-2)) + prior if consistent else z @ weights
    return Codes(z, logits, prior, encoder, classes if backward else None, marginal, noise=noise)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_measure_is_what_torch_says(family):
    marginal = make(family, 1, 9)[0]
    codes = coded(family, marginal=marginal)
    found = measure(codes, LABELS)
    z = codes.samples
    log_e, log_b = reference(codes.encoder).log_prob(z), reference(codes.backward[LABELS]).log_prob(z)
    log_m, log_c = reference(marginal).log_prob(z), Categorical(logits=codes.logits).log_prob(LABELS)
    expected = {
        "cross_entropy": -log_c,
        "i_yz_lower": log_c - PRIOR[LABELS],
        "rate": log_e - log_m,
        "residual": log_e - log_b,
        "i_yz_backward": log_b - log_m,
        "consistency_gap": log_b - log_m - log_c + PRIOR[LABELS],
    }
    for name, values in expected.items():
        torch.testing.assert_close(found.pop(name), values.mean(0), rtol=1e-10, atol=1e-10)
    assert set(found) == {"rate_lower", "rate_upper"}


@pytest.mark.parametrize("family", FAMILIES)
def test_identity_3_a_consistent_model_agrees_with_itself_on_every_code(family):
    """Identity 3: m = Σ p(y)·b(z|y), c(y|z) ∝ p(y)·b(z|y) ⇒ log b − log m = log c − log p(y), to 4e-12."""
    codes = coded(family, consistent=True)
    found = Measures(codes, LABELS)
    for left, right in [
        (found.log_backward - found.log_marginal, found.log_classifier - PRIOR[LABELS]),
        (found.consistency_gap, torch.zeros(N, dtype=torch.float64)),
    ]:
        torch.testing.assert_close(left, right, rtol=0, atol=4e-12)
    # on average: R − ReX = H(Y) − ce, since labels occur as often as p(y) says; and so, in the form of Fischer 2020
    # (information + (β − 1 or γ) · ce at ρ = 0), VIB_0 − CEB_0 = (R + 2·ce) − (ReX + ce) = H(Y)
    rate, rex, ce = found.rate.mean(), found.residual.mean(), found.cross_entropy.mean()
    entropy = codes.label_entropy
    torch.testing.assert_close(rate - rex, entropy - ce, rtol=0, atol=4e-12)
    torch.testing.assert_close((rate + 2 * ce) - (rex + ce), entropy, rtol=0, atol=4e-12)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from(FAMILIES))
def test_what_always_holds(seed, family):
    """R − ReX is the backward account; the gap is the two accounts' difference; R_X ≤ ln n."""
    found = measure(coded(family, seed), LABELS)
    torch.testing.assert_close(found["rate"] - found["residual"], found["i_yz_backward"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        found["i_yz_backward"] - found["i_yz_lower"], found["consistency_gap"], rtol=1e-9, atol=1e-9
    )
    assert (found["rate_lower"] <= math.log(N) + 1e-9).all()


def test_an_inconsistent_classifier_has_a_gap_of_its_own_error():
    """With m and b exact for one another, the gap is E[log c*(y|z) − log c(y|z)], c* being Bayes' rule: here known."""
    flat = coded(consistent=True)
    codes = replace(flat, logits=torch.zeros_like(flat.logits))  # c(y|z) = 1/C
    exact = measure(flat, LABELS)["i_yz_lower"]
    gap = measure(codes, LABELS)["consistency_gap"]
    torch.testing.assert_close(gap, exact + math.log(CLASSES) + PRIOR[LABELS], rtol=1e-10, atol=1e-10)


def test_codes_without_a_density_have_fewer_measures():
    plain = coded()
    assert set(measure(Codes(plain.samples, plain.logits), LABELS)) == {"cross_entropy", "i_yz_lower"}
    vib = replace(plain, log_prior=None, backward=None, marginal=uniform_mixture(plain.backward))
    assert set(measure(vib, LABELS)) == {"cross_entropy", "i_yz_lower", "rate", "rate_lower", "rate_upper"}
    encoder_alone = replace(plain, log_prior=None, backward=None)
    assert set(measure(encoder_alone, LABELS)) == {"cross_entropy", "i_yz_lower", "rate_lower", "rate_upper"}


def test_a_hierarchy_is_measured_where_it_decides_and_where_information_comes_in():
    low, top = coded("diagonal", 3), coded("full", 5)
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(SAMPLES, N, DIM, generator=generator, dtype=torch.float64)
    encoder = IdentityGaussian(mean)
    top = replace(top, samples=encoder.sample(top.noise), encoder=encoder, below=low)
    found, lower, upper = measure(top, LABELS), measure(low, LABELS), Measures(top, LABELS)
    for name in ("rate", "residual", "rate_lower", "rate_upper"):
        assert torch.equal(found[name], lower[name])
    assert torch.equal(found["cross_entropy"], upper.cross_entropy)
    assert torch.equal(found["consistency_gap"], upper.consistency_gap)
    torch.testing.assert_close(upper.log_encoder, IdentityGaussian(mean).log_prob(top.samples), rtol=1e-12, atol=1e-12)
    one = Measures(top, LABELS, samples=1)
    torch.testing.assert_close(one.residual, (upper.log_encoder - upper.log_backward)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_measuring_leaves_the_gradients_of_training_alone(family):
    """Gaussians keep what they computed once: measured without gradients, it must not be what training gets."""
    codes = coded(family)
    mean = codes.encoder.mean.clone().requires_grad_()
    encoder = type(codes.encoder)(mean, *list(vars(codes.encoder).values())[1:2])
    noise = torch.zeros(1, N, DIM).double()
    codes = Codes(encoder.sample(noise), codes.logits[:1], None, encoder, codes.backward, noise=noise)
    assert not any(values.requires_grad for values in measure(codes, LABELS).values())
    (gradient,) = torch.autograd.grad(kl(codes.backward[LABELS], encoder).sum(), mean)
    assert gradient.abs().sum() > 0


def test_the_distance_to_the_mni_point():
    assert mni_distance(5.0, 2.0, 2.0) == 3.0  # knows all about the label, and three nats of the image besides
    assert mni_distance(2.0, 1.0, 2.0) == 1.0  # lacks a nat of the label
    assert mni_distance(5.0, -2.0, 2.0) == 5.0
    assert mni_distance(math.log(10), math.log(10), math.log(10)) == 0.0
