"""Float32 against float64 for every objective, from tame to extreme: scales, means, logits, ρ, and odd batches.

The same model, images and noise in both; what differs is rounding. All terms have to agree, however narrow e(z|x) is
and however its coordinates are correlated: log e(z|x) of its own sample comes from the noise. Only where the density of
a narrow Gaussian is taken at the codes of another, float32 has rounded the mean between them, which moves it by about
eps·|z|/σ standard deviations, and what follows from that is allowed for.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import isthmus
from isthmus.information.codes import Codes
from isthmus.information.contrast import partner_logits
from isthmus.models.gaussian_heads import INITIAL_STD, Encoder
from isthmus.models.paired import Paired

CLASSES, DIM, FEATURES, SAMPLES = 4, 3, 6, 2
OF_LABELS = ["deterministic", "vib", "ceb", "catgen", "bidirectional", "hierarchical"]
OF_PAIRS = ["predictive", "denoising"]
VALUES, GRADIENTS = 2e-5, 2e-3  # relative to the largest of the quantity's parts, and of a parameter's gradients
EPS = torch.finfo(torch.float32).eps

extremes = st.fixed_dictionaries(
    {
        "covariance": st.sampled_from(["identity", "diagonal", "full"]),
        "sigma": st.sampled_from([1.0, 1e-2, 1e-4, 1e-6]),
        "mean": st.sampled_from([1.0, 1e3]),
        "correlated": st.booleans(),  # of full covariances: off-diagonals of L of 1, whatever its diagonal
        "logit": st.sampled_from([1.0, 1e4]),
        "n": st.sampled_from([1, 2, 12]),
        "classes": st.sampled_from([1, 3, 4]),  # of how many there are examples in the batch
        "seed": st.integers(0, 1000),
    }
)
rhos = st.one_of(st.floats(-3.0, 10.0), st.sampled_from([50.0, 69.0, 70.0, 100.0, math.inf]))


@torch.no_grad()
def sharpen(encoder: Encoder, sigma: float, mean: float, correlated: bool) -> None:
    """Means of the size of ``mean`` and a diagonal of L near ``sigma``.

    Off-diagonals shrink with it, so that correlations keep their shape, or are all near 1 where ``correlated``.
    """
    layer, dim, covariance = encoder.project, encoder.dim, encoder.covariance
    layer.weight[:dim] *= mean
    if covariance == "identity":
        return
    raw = math.log(math.expm1(sigma)) - math.log(math.expm1(INITIAL_STD[covariance]))
    layer.weight[dim:] *= 0.1
    if covariance == "diagonal":
        layer.bias[dim:] = raw
        return
    rows, columns = torch.tril_indices(dim, dim)
    own = torch.zeros(len(layer.bias), dtype=torch.bool)
    own[dim:] = rows == columns
    layer.bias[own] = raw
    own[:dim] = True
    layer.weight[~own] *= sigma
    if correlated:
        layer.bias[~own] = 1.0


def label_model(name, case, kl):
    torch.manual_seed(case["seed"])
    objective = {"name": name} if name == "deterministic" else {"name": name, "kl": kl}
    model = isthmus.bottleneck(
        nn.Flatten(),
        CLASSES,
        objective,
        DIM,
        features=FEATURES,
        options={"covariance": case["covariance"], "samples": SAMPLES},
    )
    sharpen(model.encoder, case["sigma"], case["mean"], case["correlated"])
    if model.classifier is not None:
        with torch.no_grad():
            model.classifier.weight *= case["logit"]
    return model


def pair_model(name, case, kl):
    torch.manual_seed(case["seed"])
    chosen = isthmus.core.config.component("objectives", {"name": name, "kl": kl})
    heads = [Encoder(FEATURES, DIM, case["covariance"]) for _ in range(2)]
    for head in heads:
        sharpen(head, case["sigma"], case["mean"], case["correlated"])
    return Paired(nn.Flatten(), heads[0], nn.Flatten(), heads[1], chosen)


def step(model, case, rho, dtype):
    """Terms of one batch and their gradients; the same numbers for every dtype, but for their rounding."""
    model = copy.deepcopy(model).to(dtype)
    generator = torch.Generator().manual_seed(case["seed"])
    n, shape = case["n"], (SAMPLES, case["n"], getattr(model, "noise_dim", DIM))
    x, partner = (torch.rand(n, 1, 2, 3, generator=generator).to(dtype) for _ in range(2))
    noise, other = torch.randn(shape, generator=generator), torch.randn(SAMPLES, n, DIM, generator=generator)
    noise, other = noise.to(dtype), other.to(dtype)
    if isinstance(model, Paired):
        labels = torch.arange(n)
        encoder, backward = model.encode(x), model.encode_partner(partner)
        z = encoder.sample(noise)
        codes = Codes(z, partner_logits(backward, z), None, encoder, backward, label_noise=other, noise=noise)
    else:
        labels = torch.randint(case["classes"], (n,), generator=generator)
        codes = model.draw(model.encode(x), noise, other) if model.stochastic else model.codes(x)
    terms = model.objective.terms(codes, labels, rho)
    gradients = torch.autograd.grad(terms.total, list(model.parameters()), allow_unused=True)
    return terms.scalars(), [g for g in gradients if g is not None], codes


def check(model, case, rho, densities):
    """Finite throughout, and near float64.

    Args:
        densities: the terms that take a narrow Gaussian's density at the codes of another.
    """
    found, gradients, codes = step(model, case, rho, torch.float32)
    expected, exact, _ = step(model, case, rho, torch.float64)
    assert all(math.isfinite(value) for value in found.values()), found
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    logits = 8 * EPS * float(codes.logits.detach().abs().max())  # a cross-entropy is a difference of these
    sigma = narrowest(codes) if case["correlated"] and densities else case["sigma"]
    moved = 4 * EPS * float(codes.samples.detach().abs().max()) / sigma  # of a code, in standard deviations
    names = [name for name in ("ce", "residual", "rate", "reverse_ce", "reverse_residual", "total") if name in found]
    # A code may be far from its own partner and as far from the others: picking compares such densities, and what
    # rounding moves is their size, not that of the small cross-entropy.
    furthest = max(1.0, *(abs(expected[name]) for name in names))
    largest = max(abs(expected["ce"]), 1.0)
    for name in names:
        largest = max(largest, abs(expected[name]))
        within = VALUES * largest + logits
        if name in densities:  # halved squares of distances in standard deviations
            within += (1 + found["weight"]) * (moved * (8 * DIM + 8 * math.sqrt(2 * furthest)) + DIM * moved**2)
        assert found[name] == pytest.approx(expected[name], rel=VALUES, abs=within), name
    if "total" not in densities:  # a softmax is wrong by a factor e^(error of logits), and by eps next to 1
        factor = GRADIENTS + math.expm1(min(logits, 50.0))
        size = case["logit"] * max(1.0, float(codes.samples.detach().abs().max()))
        for gradient, other in zip(gradients, exact, strict=True):
            within = factor * float(other.abs().max()) + GRADIENTS * VALUES * largest + 8 * EPS * size
            assert float((gradient - other).abs().max()) <= within


def narrowest(codes):
    """The least standard deviation in any direction of any image's e(z|x)."""
    return float(torch.linalg.svdvals(codes.encoder.scale_tril.detach().double()).min())


PICKED = {"ce", "reverse_ce", "total", "rate"}  # among codes and their densities
SAMPLED = PICKED | {"residual", "reverse_residual"}


@pytest.mark.parametrize("name", OF_LABELS)
@settings(max_examples=25)
@given(case=extremes, rho=rhos)
def test_closed_forms_agree_with_float64(name, case, rho):
    check(label_model(name, case, "closed"), case, rho, PICKED if name == "bidirectional" else set())


@pytest.mark.parametrize("name", OF_LABELS[1:])
@settings(max_examples=15)
@given(case=extremes, rho=rhos)
def test_sampled_forms_agree_with_float64(name, case, rho):
    check(label_model(name, case, "sampled"), case, rho, SAMPLED if name == "bidirectional" else set())


@pytest.mark.parametrize("name", ["vib", "ceb", "catgen", "hierarchical"])
@pytest.mark.parametrize("sigma", [0.1, 1e-2, 1e-3])
def test_small_diagonals_with_unit_off_diagonals_agree_with_float64(name, sigma):
    """At means near 10, whitening a rounded code is wrong by more than 1e8 nats there."""
    fixed = {"covariance": "full", "mean": 10.0, "correlated": True, "logit": 1.0, "n": 12, "classes": 4, "seed": 0}
    case = fixed | {"sigma": sigma}
    check(label_model(name, case, "sampled"), case, 0.0, set())


@pytest.mark.parametrize("name", OF_PAIRS)
@pytest.mark.parametrize("kl", ["closed", "sampled"])
@settings(max_examples=15)
@given(case=extremes, rho=rhos)
def test_pairs_agree_with_float64(name, kl, case, rho):
    check(pair_model(name, case, kl), case, rho, PICKED if kl == "closed" else SAMPLED)
