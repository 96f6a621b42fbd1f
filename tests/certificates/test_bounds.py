"""Bounds of margins: exact where a closed form exists, and never above what an adversary reaches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import nn

import isthmus
from isthmus.attacks.threats import L1, L2, ULP, Linf
from isthmus.certificates import bounds, network, regions
from isthmus.core.errors import ConfigError
from tests.attacks.linear_models import largest_gain
from tests.certificates.small_networks import KINDS, adversaries, all_bounds, make, margins_of, pictures

METHODS = ("ibp", "crown-ibp", "crown")


@pytest.mark.parametrize("threat", [Linf(0.08), L2(0.3), L2(3.0)], ids=str)
def test_crown_is_exact_for_a_linear_classifier(threat):
    torch.manual_seed(1)
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)), pictures(6, 1)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    found = all_bounds(model, images, labels, threat)["crown"]
    weight, logits = model[1].weight.detach().double().numpy(), model(images).detach().double()
    clean = margins_of(logits, labels)
    for row, (image, y) in enumerate(zip(images.flatten(1).double().numpy(), labels.tolist(), strict=True)):
        others = [j for j in range(4) if j != y]
        for column, j in enumerate(others):
            exact = float(clean[row, column]) - largest_gain(threat, weight[j] - weight[y], image)
            assert found[row, column] <= exact + 1e-9
            assert found[row, column] >= exact - 2e-4


def exact_minimum(model, low, high, row):
    """The least margin of a ReLU network with one hidden layer, by a linear program for each activation pattern."""
    (first, second) = (model[1], model[3])
    w, b = first.weight.detach().double().numpy(), first.bias.detach().double().numpy()
    v, c = row @ second.weight.detach().double().numpy(), row @ second.bias.detach().double().numpy()
    best = np.inf
    for pattern in itertools.product((0, 1), repeat=len(w)):
        on = np.array(pattern)
        sign = np.where(on, -1.0, 1.0)
        solved = linprog((v * on) @ w, A_ub=sign[:, None] * w, b_ub=-sign * b, bounds=list(zip(low, high, strict=True)))
        if solved.status == 0:
            best = min(best, solved.fun + (v * on) @ b + c)
    return best


def tiny_problem(seed, eps, bias=0.0):
    """A network of five ReLUs, an image, its label, a threat, the margin's coefficients, and its exact minimum."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    model[1].bias.data += bias
    image, threat = torch.rand(1, 1, 2, 2), Linf(eps)
    label = model(image).argmax(1)
    row = bounds.margins(2, label)[0, 0].numpy()
    low, high = (edge.flatten().numpy() for edge in regions.region(threat, image).box)
    return model, image, label, threat, row, exact_minimum(model, low, high, row)


@pytest.mark.parametrize("seed", range(3))
def test_bounds_are_below_the_exact_minimum_of_a_small_relu_network(seed):
    model, image, label, threat, _, exact = tiny_problem(seed, 0.2)
    found = all_bounds(model, image, label, threat)
    for method in METHODS:
        assert found[method].item() <= exact + 1e-7, method
    assert found["crown"].item() >= exact - 1.0  # not vacuous


def test_a_network_whose_signs_are_known_is_bounded_exactly():
    model, image, label, threat, _, exact = tiny_problem(0, 0.1, bias=5.0)  # always on, so that the network is linear
    found = all_bounds(model, image, label, threat)
    for method in ("crown-ibp", "crown"):
        assert exact - 1e-4 <= found[method].item() <= exact + 1e-9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threat", [Linf(0.05), L2(0.25)], ids=str)
@settings(max_examples=2)
@given(seed=st.integers(0, 2**20))
def test_no_adversary_goes_below_a_bound(kind, threat, seed):
    model, images = make(kind, seed, scale=1 + seed % 3), pictures(8, seed)
    labels = model(images).argmax(1)
    found = all_bounds(model, images, labels, threat)
    for adversarial in adversaries(model, images, labels, threat, 4, seed):
        reached = margins_of(model(adversarial), labels)
        for method, bound in found.items():
            assert bool((bound <= reached).all()), method


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_of_layers_are_nested_and_hold_for_every_layer(kind):
    model, images, threat = make(kind, 3), pictures(1, 3), Linf(0.05)
    net, region = network.read(model, images), regions.region(threat, images)
    intervals = net.intervals(region.box)
    tight = bounds.tightened(net, intervals, region)
    for wide, narrow in zip(intervals, tight, strict=True):
        assert bool((narrow.low >= wide.low).all())
        assert bool((narrow.high <= wide.high).all())
    labels = model(images).argmax(1)
    for adversarial in adversaries(model, images, labels, threat, 12, 5):
        exact = adversarial.double()
        for point, box in zip(net.intervals(regions.Box(exact, exact)), tight, strict=True):
            assert bool((point.high >= box.low).all())
            assert bool((point.low <= box.high).all())


def test_crown_is_tighter_than_intervals_on_deep_networks():
    model, images, threat = make("dense", 0), pictures(20, 0), Linf(0.05)
    found = all_bounds(model, images, model(images).argmax(1), threat)
    assert bool((found["crown-ibp"] > found["ibp"]).all())
    assert found["crown"].mean() > found["crown-ibp"].mean()


@pytest.mark.parametrize("threat", [Linf(8 / 255), Linf(0.3), L2(0.5)], ids=str)
def test_the_region_holds_every_image_that_the_library_accepts(threat):
    images = torch.cat([pictures(40, 7), torch.zeros(1, 1, 6, 6), torch.ones(1, 1, 6, 6)])
    region = regions.region(threat, images)
    accepted = 0
    for moved in adversaries(make("dense", 0), images, torch.zeros(42, dtype=torch.int64), threat, 12, 0):
        for step in (0.0, ULP / 2, ULP):
            tried = (moved + step * (moved - images).sign()).clamp(0, 1)
            inside = threat.contains(tried, images)
            accepted += int(inside.sum())
            exact = tried.double()
            within = ((exact >= region.box.low) & (exact <= region.box.high)).flatten(1).all(1)
            assert bool(within[inside].all())
            if isinstance(threat, L2):
                lengths = torch.linalg.vector_norm((exact - images.double()).flatten(1), dim=1)
                assert bool((lengths[inside] <= region.radius).all())
    assert accepted > 100
    assert region.box.low.min() == 0
    assert region.box.high.max() == 1


def test_the_l2_minimum_is_that_of_ball_and_box():
    images, threat = pictures(5, 2), L2(1.5)
    rows = torch.randn(5, 3, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = regions.region(threat, images).minimum(rows)
    for i, j in itertools.product(range(5), range(3)):
        image, row = images[i].flatten().double().numpy(), rows[i, j].flatten().numpy()
        exact = float(row @ image) - largest_gain(threat, -row, image)
        assert exact - 1e-3 <= found[i, j] <= exact + 1e-9


def test_l1_has_no_bounds():
    with pytest.raises(ConfigError, match="linf and l2"):
        regions.region(L1(1.0), pictures(1, 0))


def test_nothing_is_certified_where_a_float32_pass_may_overflow():
    images = pictures(1, 0)
    net, region = network.read(make("dense", 0), images), regions.region(Linf(0.1), images)
    huge = [regions.Box(box.low * 1e33, box.high * 1e33) for box in net.intervals(region.box)]
    assert bool((bounds.sound(torch.ones(1, 2), huge) == -torch.inf).all())
    assert bool(bounds.sound(torch.tensor([[1.0, torch.nan]]), net.intervals(region.box))[0, 1] == -torch.inf)


def test_the_first_linear_layer_is_bounded_by_intervals_alone(monkeypatch):
    """Also behind a normalisation: intervals are exact there in ℓ∞, up to rounding."""
    model, images = isthmus.normalized(make("dense", 0), 0.1, 0.3), pictures(1, 0)
    net = network.read(model, images)
    first = next(at for at, node in enumerate(net.nodes) if node.shape == (8,))
    tried = []
    unit_rows = bounds._unit_rows
    monkeypatch.setattr(bounds, "_unit_rows", lambda *given: tried.append(given[3]) or unit_rows(*given))
    for threat, expected in ((Linf(0.1), False), (L2(0.5), True)):
        tried.clear()
        region = regions.region(threat, images)
        intervals = net.intervals(region.box)
        tight = bounds.tightened(net, intervals, region)
        assert (first in tried) is expected
        assert tried, "deeper layers are bounded by CROWN"
        low = bounds._unit_rows(net, intervals, region, first, torch.arange(8), 1.0)
        if not expected:
            assert torch.allclose(low, tight[first].low.flatten(), atol=1e-4)
