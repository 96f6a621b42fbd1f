"""CatGen and bidirectional CEB: codes that pick their own partner among the batch's."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import multivariate_normal
from torch import nn
from torch.nn import functional

import isthmus
from isthmus.core import config
from isthmus.core.errors import ConfigError
from isthmus.information import contrast
from isthmus.information.codes import Codes
from isthmus.information.contrast import among_codes, among_labels
from isthmus.information.gaussians import DiagonalGaussian, FullGaussian, IdentityGaussian, kl
from isthmus.information.mixtures import Mixture

N, CLASSES, DIM, SAMPLES = 12, 4, 3, 2
GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(N) % CLASSES


def drawn(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def gaussians(family, n):
    mean = drawn(n, DIM)
    if family == "identity":
        return IdentityGaussian(mean)
    if family == "diagonal":
        return DiagonalGaussian(mean, 0.3 * drawn(n, DIM))
    factor = torch.tril(0.3 * drawn(n, DIM, DIM), -1) + torch.diag_embed((0.3 * drawn(n, DIM)).exp())
    return FullGaussian(mean, factor)


FAMILIES = ("identity", "diagonal", "full")


@pytest.mark.parametrize("family", FAMILIES)
def test_among_labels_is_info_nce_over_the_whole_batch(family):
    """Identity 7: InfoNCE with log b as its critic."""
    backward, z = gaussians(family, CLASSES), drawn(SAMPLES, N, DIM)
    pairs = torch.stack([backward[LABELS].log_prob(z[:, i : i + 1]) for i in range(N)], 1)  # samples × codes × partners
    losses = [functional.cross_entropy(s, torch.arange(N), reduction="none") for s in pairs]
    torch.testing.assert_close(among_labels(backward, z, LABELS), torch.stack(losses).mean(0))


def test_catgen_is_info_nce_by_brute_force():
    """Identity 7: from densities of scipy, one pair at a time."""
    backward, z = gaussians("full", CLASSES), drawn(1, N, DIM)
    covariances = (backward.factor @ backward.factor.mT).numpy()
    critic = [
        [multivariate_normal(backward.mean[y].numpy(), covariances[y]).logpdf(code.numpy()) for y in LABELS]
        for code in z[0]
    ]
    losses = [math.log(sum(math.exp(score) for score in row)) - row[i] for i, row in enumerate(critic)]
    torch.testing.assert_close(among_labels(backward, z, LABELS), torch.tensor(losses, dtype=torch.float64))


@pytest.mark.parametrize("family", FAMILIES)
def test_among_codes_is_info_nce_over_the_whole_batch(family):
    encoder, z = gaussians(family, N), drawn(SAMPLES, N, DIM)
    pairs = torch.stack([encoder.log_prob(z[:, i : i + 1]) for i in range(N)], 1)
    losses = [functional.cross_entropy(s, torch.arange(N), reduction="none") for s in pairs]
    torch.testing.assert_close(among_codes(encoder, z), torch.stack(losses).mean(0))


def test_it_comes_to_the_same_in_parts_of_the_batch(monkeypatch):
    def loss_and_gradient():
        mean = drawn_mean.clone().requires_grad_()
        loss = among_codes(IdentityGaussian(mean), mean + noise)
        (gradient,) = torch.autograd.grad(loss.sum(), mean)
        return loss.detach(), gradient

    drawn_mean, noise = drawn(N, DIM), drawn(SAMPLES, N, DIM)
    whole = loss_and_gradient()
    monkeypatch.setattr(contrast, "ROWS", 5)
    for parts, expected in zip(loss_and_gradient(), whole, strict=True):
        torch.testing.assert_close(parts, expected)


@pytest.mark.parametrize("often", [1, 3])
def test_perfect_separation_tells_all_that_a_batch_can(often):
    """Identity 7: ln K − ce is ln(K/n_y) where codes are far apart: ln K with distinct labels, else less."""
    labels = torch.arange(8).repeat(often)
    backward = IdentityGaussian(1e3 * torch.arange(8.0, dtype=torch.float64)[:, None].expand(8, DIM))
    loss = among_labels(backward, backward.mean[labels][None], labels)
    torch.testing.assert_close(loss, torch.full_like(loss, math.log(often)))


def codes(family="full", label_noise=False):
    encoder, backward = gaussians(family, N), gaussians(family, CLASSES)
    noise = drawn(SAMPLES, N, DIM)
    z = encoder.sample(noise)
    other = drawn(SAMPLES, N, DIM) if label_noise else None
    return Codes(z, backward.scores(z), None, encoder, backward, label_noise=other, noise=noise)


def terms(name, given, rho=1.0, **options):
    chosen = config.component("objectives", {"name": name, "rho": rho, **options})
    return chosen.terms(given, LABELS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["closed", "sampled"])
def test_catgen_is_its_equation(family, form):
    given = codes(family)
    found = terms("catgen", given, 1.5, kl=form)
    ratio = given.encoder.log_prob(given.samples) - given.backward[LABELS].log_prob(given.samples)
    information = kl(given.encoder, given.backward[LABELS]).mean() if form == "closed" else ratio.mean()
    ce = among_labels(given.backward, given.samples, LABELS).mean()
    torch.testing.assert_close(found.total, ce + math.exp(-1.5) * information)
    assert float(found.i_yz_lower) == pytest.approx(math.log(N) - float(ce))
    assert float(found.i_yz_lower) <= math.log(N)


@pytest.mark.parametrize("form", ["closed", "sampled"])
def test_bidirectional_is_its_equation(form):
    given = codes(label_noise=True)
    found = terms("bidirectional", given, 0.5, kl=form)
    one_way = terms("catgen", given, 0.5, kl=form)
    z = given.backward[LABELS].sample(given.label_noise)
    back = among_codes(given.encoder, z).mean()
    ratio = (given.backward[LABELS].log_prob(z) - given.encoder.log_prob(z)).mean()
    reverse = kl(given.backward[LABELS], given.encoder).mean() if form == "closed" else ratio
    torch.testing.assert_close(found.total, one_way.total + back + math.exp(-0.5) * reverse)
    torch.testing.assert_close(found.reverse_ce, back)
    torch.testing.assert_close(found.reverse_residual, reverse)


def test_both_directions_agree_where_both_encoders_do():
    """With a class for each image and b = e, the two halves are the same expectation: equal noise, equal terms."""
    encoder, noise = gaussians("diagonal", N), drawn(SAMPLES, N, DIM)
    z = encoder.sample(noise)
    same = Codes(z, encoder.scores(z), None, encoder, encoder, label_noise=noise, noise=noise)
    chosen = config.component("objectives", {"name": "bidirectional"})
    found = chosen.terms(same, torch.arange(N))
    torch.testing.assert_close(found.ce, found.reverse_ce)
    assert float(found.residual) == pytest.approx(0, abs=1e-12) == float(found.reverse_residual)


def test_the_consistent_classifier_makes_information_add_up():
    """With m(z) = Σ p(y)·b(z|y), log b − log m = log c − log p(y) per example, so that R − ReX = H(Y) − ce."""
    prior = torch.tensor([0.4, 0.3, 0.2, 0.1])
    model = isthmus.bottleneck(
        nn.Flatten(),
        4,
        "catgen",
        3,
        features=16,
        class_counts=[40, 30, 20, 10],
        options={"covariance": "full", "samples": 2},
    ).double()
    images, labels = drawn(N, 1, 4, 4).sigmoid(), LABELS
    with torch.no_grad():
        found = model.codes(images)
        own = found.log_probs.gather(-1, labels.expand(2, -1)[..., None]).squeeze(-1)
        ratio = found.backward[labels].log_prob(found.samples) - Mixture(found.backward, model.log_prior).log_prob(
            found.samples
        )
    torch.testing.assert_close(ratio, own - model.log_prior[labels], atol=1e-9, rtol=0)
    torch.testing.assert_close(model.log_prior.exp().float(), prior)


@pytest.mark.parametrize("name", ["catgen", "bidirectional"])
def test_only_encoders_have_parameters(name):
    model = isthmus.bottleneck(nn.Flatten(), 10, name, 4, features=16)
    assert {key.partition(".")[0] for key, _ in model.named_parameters()} == {"encoder", "backward_encoder"}


def test_a_consistent_classifier_needs_labels_codes():
    with pytest.raises(ConfigError, match=r"made from b\(z\|y\)"):
        isthmus.bottleneck(nn.Flatten(), 10, "vib", 4, features=16, options={"classifier": "consistent"})
    model = isthmus.bottleneck(nn.Flatten(), 10, "ceb", 4, features=16, options={"classifier": "consistent"})
    assert model(torch.rand(3, 1, 4, 4)).shape == (3, 10)


@pytest.mark.parametrize("name", ["catgen", "bidirectional"])
def test_trained_on_blobs_it_knows_the_label(name):
    """Ten far blobs: I(X;Y) = ln 10, which is also what a batch of 250 can tell of balanced labels."""
    torch.manual_seed(0)
    centres = 4 * torch.randn(10, 8, generator=torch.Generator().manual_seed(1))
    model = isthmus.bottleneck(
        nn.Sequential(nn.Flatten(), nn.Linear(8, 64), nn.ReLU()), 10, {"name": name, "rho": 4.0}, 8, features=64
    )
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    tail = []
    for step in range(500):
        labels = torch.arange(250) % 10
        images = (centres[labels] + torch.randn(250, 8)).view(-1, 1, 1, 8)
        found = model.loss(images, labels)
        optimiser.zero_grad()
        found.total.backward()
        optimiser.step()
        if step >= 450:
            tail.append((float(found.i_yz_lower), float(found.accuracy)))
    told, right = torch.tensor(tail).mean(0).tolist()
    assert told == pytest.approx(math.log(10), abs=0.12)
    assert told <= math.log(10) + 0.01
    assert right > 0.97
    with torch.no_grad():
        assert (model(images).argmax(1) == labels).float().mean() > 0.97
