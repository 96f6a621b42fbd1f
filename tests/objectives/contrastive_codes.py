"""Random codes and Gaussians for tests of contrastive objectives."""

from __future__ import annotations

import torch

from isthmus.core import config
from isthmus.information.codes import Codes
from isthmus.information.gaussians import DiagonalGaussian, FullGaussian, IdentityGaussian

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


def codes(family="full", label_noise=False):
    encoder, backward = gaussians(family, N), gaussians(family, CLASSES)
    noise = drawn(SAMPLES, N, DIM)
    z = encoder.sample(noise)
    other = drawn(SAMPLES, N, DIM) if label_noise else None
    return Codes(z, backward.scores(z), None, encoder, backward, label_noise=other, noise=noise)


def terms(name, given, rho=1.0, **options):
    chosen = config.component("objectives", {"name": name, "rho": rho, **options})
    return chosen.terms(given, LABELS)
