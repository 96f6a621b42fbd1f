"""What is learned on problems whose information is known: the right number, from the right side."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import minimize
from torch import nn

import isthmus
from isthmus.data.noise_functions import gaussian_noise, same_class
from isthmus.data.sequences import Autoregression
from isthmus.data.toys import Blobs
from isthmus.information.jointly_gaussian import gaussian_bottleneck

pytestmark = pytest.mark.end_to_end  # trains

K = 200
AR = Autoregression.scalar(0.9)


def learn(model, draw, steps=200, lr=0.04, loose=None):
    """Train on fresh batches, the last third at a fifth of the rate; then the mean terms of six batches of 1000.

    The first third may be at another ρ, a looser one: near ρ = 0 a code grows slowly out of nothing.
    """
    generator, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    optimiser = torch.optim.Adam(model.parameters(), lr)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr if step < steps * 2 // 3 else lr / 5
        terms = model.loss(*draw(K, generator), loose if step < steps // 3 else None, noise)
        optimiser.zero_grad()
        terms.total.backward()
        optimiser.step()
    with torch.no_grad():
        found = [model.loss(*draw(1000, generator), noise=noise).scalars() for _ in range(6)]
    return {name: sum(each[name] for each in found) / len(found) for name in found[0]}


def windows(process, past, future):
    def draw(count, generator):
        drawn = process.sample(count, past, future, generator)
        return drawn.past, drawn.future

    return draw


def linear(objective, past, future, dim=1):
    """Linear encoders, which are optimal for Gaussian processes."""
    torch.manual_seed(0)
    return isthmus.paired(nn.Flatten(), nn.Flatten(), objective, dim, features=past, partner_features=future)


@pytest.mark.parametrize("rho", [pytest.param(0.0, marks=pytest.mark.slow), 3.0])
def test_predictive_ceb_finds_the_exact_bottleneck_of_an_ar1_process(rho):
    """The optimum is known (Chechik et al. 2005): at ρ = 3, 2.225 nats of the past for 0.806 of the 0.830 there are."""
    found = learn(linear({"name": "predictive", "rho": rho}, 3, 2), windows(AR, 3, 2), 300, lr=0.1, loose=3.0)
    exact = gaussian_bottleneck(AR.correlations(3, 2), rho)
    assert found["i_yz_lower"] == pytest.approx(exact.i_yz, abs=0.06)
    assert found["residual"] == pytest.approx(exact.i_xz_given_y, abs=0.12)
    assert found["rate_lower"] - 0.12 < exact.i_xz < found["rate_upper"] + 0.12
    assert found["i_yz_lower"] < -0.5 * math.log(1 - 0.81) + 0.02


def best_both_ways(correlation, rho):
    """The optimum of bidirectional CEB with e = N(a·x, s²) and b = N(c·y, t²), from its closed form: both bounds, nats.

    A tight ce asks for b(z|y) = p(z|y), broader than e, and a tight reverse ce for e(z|x) = p(z|x), broader than b.
    Where y does not follow from x there is no such pair, so that both ways tell less than one.
    """

    def one(a, s, c, t):
        spread, distance = a * a + s * s, a * a + c * c - 2 * a * c * correlation
        told = 0.5 * math.log(1 + c * c / (t * t)) - 0.5 * (distance + s * s) / (t * t) + 0.5 * spread / (c * c + t * t)
        return told, 0.5 * ((s * s + distance) / (t * t) - 1) + math.log(t / s)

    def loss(numbers):
        a, c, s, t = numbers[0], numbers[1], math.exp(numbers[2]), math.exp(numbers[3])
        (forth, residual), (back, reverse) = one(a, s, c, t), one(c, t, a, s)
        return -forth - back + math.exp(-rho) * (residual + reverse)

    a, c, s, t = minimize(loss, [1.0, 1.0, 0.0, 0.0], method="Nelder-Mead", options={"maxiter": 4000}).x
    return one(a, math.exp(s), c, math.exp(t))[0], one(c, math.exp(t), a, math.exp(s))[0]


def test_both_ways_tell_less_than_one_of_a_noisy_pair():
    """The bounds that are found are those of the objective's optimum, computed apart."""
    found = learn(linear({"name": "predictive", "bidirectional": True, "rho": 3.0}, 1, 1), windows(AR, 1, 1), lr=0.1)
    best = best_both_ways(0.9, 3.0)
    assert [math.log(1000) - found["ce"], math.log(1000) - found["reverse_ce"]] == pytest.approx(best, abs=0.05)
    assert max(best) < AR.predictive_information(1, 1) - 0.2


def test_a_vector_process_needs_a_code_of_its_canonical_correlations():
    process = Autoregression(((0.9, 0.2), (-0.2, 0.7)))
    model = linear({"name": "predictive", "rho": 4.0}, 4, 2, dim=2)
    found = learn(model, windows(process, 2, 1), lr=0.1)
    exact = gaussian_bottleneck(process.correlations(2, 1), 4.0)
    assert found["i_yz_lower"] == pytest.approx(exact.i_yz, abs=0.08)
    assert found["i_yz_lower"] < process.predictive_information(2, 1) + 0.02
    assert found["residual"] == pytest.approx(exact.i_xz_given_y, abs=0.3)


def test_wider_scales_reach_what_lies_further_back():
    """At lag 4 the next step depends only on the fourth-last: a window of 2 has no information, two scales have all."""
    process = Autoregression.scalar(0.9, lag=4)
    there_is = process.predictive_information(4, 1)
    assert there_is == pytest.approx(0.830, abs=1e-3)
    near = learn(linear("predictive", 2, 1), windows(process, 2, 1), steps=30)
    assert process.predictive_information(2, 1) == 0.0
    assert near["i_yz_lower"] < 0.02
    found = learn(linear("multiscale", 2, 1), windows(process, 4, 1), lr=0.05)
    for level in (1, 2):
        told = found[f"level_{level}_i_yz_lower"]
        assert told == pytest.approx(there_is, abs=0.15)
        assert told < there_is + 0.02


def blob_front():
    return nn.Sequential(nn.Linear(10, 64), nn.Tanh())


@pytest.mark.parametrize("bidirectional", [pytest.param(True, marks=pytest.mark.slow), False])
def test_an_oracle_s_noise_leaves_the_class_and_nothing_else(bidirectional):
    """Ten far blobs, x' another of the same class: the learned information is ln 10 = 2.303 (Fischer 2020, C.3.1)."""
    blobs = Blobs(classes=10, distance=14.0)
    low, high = blobs.information

    def draw(count, generator):
        points = blobs.sample(count, generator)
        return points.features, points.features[same_class(points.labels, generator)]

    torch.manual_seed(0)
    objective = {"name": "denoising", "rho": 1.0, "bidirectional": bidirectional}
    model = isthmus.paired(blob_front(), None, objective, 8, features=64, options={"covariance": "identity"})
    found = learn(model, draw)
    assert found["i_yz_lower"] == pytest.approx(math.log(10), abs=0.12)
    assert found["i_yz_lower"] < high + 0.02
    assert found["rate_upper"] > low - 0.02
    assert found["rate_lower"] < high + 0.15, "the code says little beyond the class"
    points = blobs.sample(1000, torch.Generator().manual_seed(9))
    with torch.no_grad():
        codes = model(points.features)
    centres = torch.stack([codes[points.labels == label].mean(0) for label in range(10)])
    assert (torch.cdist(codes, centres).argmin(1) == points.labels).float().mean() > 0.99


def test_denoising_is_a_gaussian_channel_where_the_noise_is():
    """X ~ N(0, 3), X' = X + N(0, 1): the information is ½ ln 4 = 0.693 nats."""

    def draw(count, generator):
        x = math.sqrt(3.0) * torch.randn(count, 1, generator=generator)
        return x, gaussian_noise(x, 1.0, generator)

    found = learn(linear({"name": "denoising", "rho": 4.0, "bidirectional": False}, 1, 1), draw, lr=0.1)
    there_is = 0.5 * math.log(4.0)
    assert found["i_yz_lower"] == pytest.approx(there_is, abs=0.06)
    assert found["i_yz_lower"] < there_is + 0.02
    assert found["rate_upper"] > there_is - 0.02


def test_every_level_of_a_hierarchy_knows_the_label():
    """Ten distant blobs: at ρ = 1 all levels have ln 10 nats about the label and little else (Fischer 2020, C.1)."""
    blobs = Blobs(classes=10, distance=14.0)

    def draw(count, generator):
        points = blobs.sample(count, generator)
        return points.features, points.labels

    torch.manual_seed(0)
    model = isthmus.bottleneck(
        blob_front(), 10, {"name": "hierarchical", "rho": 1.0}, 4, features=64, options={"levels": 2}
    )
    found = learn(model, draw)
    low, high = blobs.information
    for level in (1, 2):
        assert found[f"level_{level}_i_yz_lower"] == pytest.approx(math.log(10), abs=0.1)
        assert found[f"level_{level}_i_yz_lower"] < high + 0.01
        assert found[f"level_{level}_rate_upper"] > low - 0.1
        assert found[f"level_{level}_rate_lower"] < high + 0.5
    assert found["accuracy"] > 0.97
