"""Identifying an example's partner among those of the batch: InfoNCE by brute force and in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import multivariate_normal
from torch.nn import functional

from isthmus.information import contrast
from isthmus.information.contrast import among_codes, among_labels
from isthmus.information.gaussians import IdentityGaussian
from tests.objectives.contrastive_codes import CLASSES, DIM, FAMILIES, LABELS, SAMPLES, N, drawn, gaussians


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
    """Identity 7: for codes far apart, ln K − ce is ln(K/n_y), which is ln K for distinct labels."""
    labels = torch.arange(8).repeat(often)
    backward = IdentityGaussian(1e3 * torch.arange(8.0, dtype=torch.float64)[:, None].expand(8, DIM))
    loss = among_labels(backward, backward.mean[labels][None], labels)
    torch.testing.assert_close(loss, torch.full_like(loss, math.log(often)))
