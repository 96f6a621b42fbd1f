"""Certificates hold for the numbers of a float32 forward pass, in any batch and memory layout."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from isthmus.attacks.threats import Linf
from isthmus.certificates import network, rounding
from isthmus.certificates.activations import LeakyReLU, SShaped
from isthmus.certificates.regions import Box
from tests.certificates.small_networks import KINDS, all_bounds, make, margins_of, pictures


def logits_in_every_way(model, images):
    """Float32 logits of the same images in other batches and memory layouts, whose sums have other orders."""
    with torch.no_grad():
        yield model(images)
        yield torch.cat([model(image[None]) for image in images])
        yield model(images.flip(0)).flip(0)
        yield model(images.contiguous(memory_format=torch.channels_last))
        yield model(images.repeat(3, 1, 1, 1))[-len(images) :]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=3)
@given(seed=st.integers(0, 2**20))
def test_the_error_of_a_float32_pass_is_within_the_bound(kind, seed):
    model, images = make(kind, seed, scale=0.5 + seed % 4), pictures(32, seed)
    exact = images.double()
    box = network.read(model, images).intervals(Box(exact, exact))[-1]
    for logits in logits_in_every_way(model, images):
        assert bool((logits >= box.low).all())
        assert bool((logits <= box.high).all())


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_of_the_error_is_small(kind):
    model, images = make(kind, 0), pictures(32, 0)
    exact = images.double()
    box = network.read(model, images).intervals(Box(exact, exact))[-1]
    assert (box.high - box.low).max() < 1e-3


def test_the_rate_exceeds_the_error_of_sums_in_any_order():
    generator = torch.Generator().manual_seed(0)
    for n in (3, 50, 1000):
        x, w = (torch.randn(n, generator=generator) for _ in range(2))
        exact = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(x, w, strict=True))
        size = float(sum(abs(Fraction(float(a)) * Fraction(float(b))) for a, b in zip(x, w, strict=True)))
        products = x * w
        for order in (products, products.flip(0), products.sort().values, products[torch.randperm(n)]):
            one_by_one = torch.zeros(())
            for product in order:
                one_by_one = one_by_one + product
            for computed in (one_by_one, order.sum()):
                assert abs(Fraction(float(computed)) - exact) <= rounding.rate(n) * size
    assert rounding.rate(2**24) == float("inf")


@settings(max_examples=15)
@given(seed=st.integers(0, 2**20))
def test_a_tie_that_rounding_decides_is_never_certified(seed):
    """Two classes whose exact margin is positive, but smaller than float32's rounding."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, 36, generator=generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    model[1].weight.data = torch.cat([weight, weight[:, torch.randperm(36, generator=generator)]])
    images = torch.full((1, 1, 6, 6), 0.1 + 0.8 * float(torch.rand((), generator=generator)))
    order = model(images).argmax(1)
    with torch.no_grad():  # both classes have the same exact sum; the bias tips it by less than the rounding
        model[1].bias.zero_()
        model[1].bias[order] = 2.0**-26
    bound = max(float(found.amin()) for found in all_bounds(model, images, order, Linf(1e-7)).values())
    assert bound <= 0
    model[1].bias.data[order] = 1e-2
    assert max(float(found.amin()) for found in all_bounds(model, images, order, Linf(1e-7)).values()) > 0


@settings(max_examples=3)
@given(seed=st.integers(0, 2**20))
def test_certified_examples_are_right_in_every_float32_pass_near_the_boundary(seed):
    """ε is where the certificate is just lost, so that what is certified is close to being broken."""
    model, images = make("dense", seed), pictures(10, seed)
    labels = model(images).argmax(1)
    clean = margins_of(model(images), labels).amin(1)
    generator = torch.Generator().manual_seed(seed)
    for eps in torch.logspace(-6, -1, 5):
        threat = Linf(float(eps))
        found = all_bounds(model, images, labels, threat)["crown"].amin(1)
        assert bool((found <= clean).all())
        moved = (images + threat.eps * torch.randn(images.shape, generator=generator).sign()).clamp(0, 1)
        inside = threat.contains(moved, images)
        for logits in logits_in_every_way(model, moved):
            broken = logits.argmax(1) != labels
            assert not bool((broken & inside & (found > 0)).any())


def dense_line(low, high):
    return torch.linspace(low, high, 20001, dtype=torch.float32)


@pytest.mark.parametrize("function", ["tanh", "sigmoid"])
def test_functions_are_within_the_assumed_error(function):
    x = torch.cat([dense_line(-20, 20), torch.randn(20000, generator=torch.Generator().manual_seed(0)) * 1e-3])
    computed, exact = getattr(torch, function)(x).double(), getattr(torch, function)(x.double())
    assert bool(((computed - exact).abs() <= rounding.FUNCTION * exact.abs()).all())


@settings(max_examples=100)
@given(
    st.sampled_from(["tanh", "sigmoid", "relu", "leaky"]),
    st.floats(-30, 30, width=32),
    st.floats(0, 40, width=32) | st.floats(0, 2.0**-20, width=32),
)
def test_lines_enclose_an_activation(kind, low, width):
    functions = {
        "tanh": (torch.tanh, SShaped("tanh")),
        "sigmoid": (torch.sigmoid, SShaped("sigmoid")),
        "relu": (torch.relu, LeakyReLU()),
        "leaky": (lambda x: nn.functional.leaky_relu(x, 0.3), LeakyReLU(float(torch.tensor(0.3)))),
    }
    function, operation = functions[kind]
    x = torch.linspace(low, low + width, 501, dtype=torch.float32)
    box = Box(x.double().amin()[None, None], x.double().amax()[None, None])
    lines = operation.lines(box)
    lower = 0.0 if lines.lower is None else lines.lower
    y = function(x).double()
    assert bool((lines.lower_slope * x.double() + lower <= y).all())
    assert bool((lines.upper_slope * x.double() + lines.upper >= y).all())
    bounds = operation.interval([box])
    assert bool((bounds.low <= y).all())
    assert bool((bounds.high >= y).all())
