"""Marginals without parameters of their own: of the batch's encoders, and of the classes' backward encoders."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import isthmus
from isthmus.information.rates import rate_sandwich

IMAGES = torch.rand(24, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 4


def model(objective="vib", marginal=None, **options):
    torch.manual_seed(0)
    options = {"dim": 3, "covariance": "full", "samples": 2} | options
    return isthmus.bottleneck(nn.Flatten(), 4, objective, features=16, options={"marginal": marginal, **options})


def gradients(net, seed=1):
    terms = net.loss(IMAGES, LABELS, noise=torch.Generator().manual_seed(seed))
    total = terms.total if terms.marginal_nll is None else terms.total + terms.marginal_nll
    named = list(net.named_parameters())
    found = torch.autograd.grad(total, [parameter for _, parameter in named], allow_unused=True)
    return terms, {name: gradient for (name, _), gradient in zip(named, found, strict=True)}


def test_the_rate_with_the_batch_s_marginal_is_info_nce():
    net = model(marginal="batch")
    with torch.no_grad():
        codes = net.codes(IMAGES)
        rates = codes.encoder.log_prob(codes.samples) - codes.marginal.log_prob(codes.samples)
    lower, _ = rate_sandwich(codes.encoder, codes.noise)
    torch.testing.assert_close(rates.mean(0).double(), lower, atol=1e-5, rtol=0)
    assert rates.mean() <= math.log(len(IMAGES)) + 1e-5


def test_vib_minimises_it():
    _, found = gradients(model({"name": "vib", "rho": -3.0}, "batch"))
    _, without = gradients(model({"name": "vib", "rho": math.inf}, "batch"))
    assert not torch.allclose(found["encoder.project.weight"], without["encoder.project.weight"])


@pytest.mark.parametrize("marginal", ["batch", "classes", "mixture"])
@pytest.mark.parametrize("objective", ["ceb", "catgen", "bidirectional"])
def test_beside_ceb_no_marginal_moves_what_is_trained(objective, marginal):
    terms, found = gradients(model(objective, marginal))
    plain_terms, plain = gradients(model(objective))
    assert torch.equal(terms.total, plain_terms.total)
    for name, gradient in plain.items():
        assert torch.equal(found[name], gradient), name


@pytest.mark.parametrize("objective", ["ceb", "catgen"])
def test_the_classes_marginal_is_what_is_reported_without_one(objective):
    with torch.no_grad():
        given, none = (
            model(objective, marginal, samples=1).loss(IMAGES, LABELS, noise=torch.Generator().manual_seed(1))
            for marginal in ("classes", None)
        )
    torch.testing.assert_close(given.rate, none.rate)


def test_vib_with_consistent_classes_differs_from_ceb_by_the_labels_entropy():
    """R − ReX = H(Y) − ce exactly, with m(z) = Σ p(y)·b(z|y) and c(y|z) by Bayes' rule on b."""
    net = model("vib", "classes", classifier="consistent")
    assert net.backward_encoder is not None
    with torch.no_grad():
        codes = net.codes(IMAGES)
        log_e = codes.encoder.log_prob(codes.samples)
        rate = (log_e - codes.marginal.log_prob(codes.samples)).mean()
        residual = (log_e - codes.backward[LABELS].log_prob(codes.samples)).mean()
        ce = codes.cross_entropy(LABELS).mean()
    assert float(rate - residual) == pytest.approx(math.log(4) - float(ce), abs=1e-5)


def test_they_train():
    for marginal in ("batch", "classes"):
        net = model("vib", marginal)
        optimiser = torch.optim.Adam(net.parameters(), 1e-2)
        losses = []
        for _ in range(60):
            terms = net.loss(IMAGES, LABELS)
            optimiser.zero_grad()
            terms.total.backward()
            optimiser.step()
            losses.append(float(terms.total.detach()))
        assert sum(losses[-5:]) < sum(losses[:5])
