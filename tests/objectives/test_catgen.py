"""CatGen: its equation, and its models, which it shares with bidirectional CEB."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import isthmus
from isthmus.core.errors import ConfigError
from isthmus.information.contrast import among_labels
from isthmus.information.gaussians import kl
from isthmus.information.mixtures import Mixture
from tests.objectives.contrastive_codes import FAMILIES, LABELS, N, codes, drawn, terms


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


@pytest.mark.parametrize("name", ["catgen", pytest.param("bidirectional", marks=pytest.mark.slow)])
def test_trained_on_blobs_it_knows_the_label(name):
    """Ten distant blobs: I(X;Y) = ln 10, which is also the maximum for a batch of 250 with balanced labels."""
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
