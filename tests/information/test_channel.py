"""Channels: the exact fixtures of the fact sheet (identity 21), limits, and a layer with known powers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isthmus.core.errors import DataError
from isthmus.information import channel
from isthmus.information.channel import (
    Channel,
    capacity_bits,
    decibels,
    layer_channel,
    noise_length,
    rate_bits,
)
from isthmus.information.jointly_gaussian import gaussian_information

POWERS = st.floats(1e-3, 1e3)


@pytest.mark.parametrize(("snr", "bits"), [(0.0, 0.0), (1.0, 0.5), (3.0, 1.0), (15.0, 2.0)])
def test_capacity_fixtures(snr, bits):
    assert capacity_bits(2.0 * snr, 2.0) == pytest.approx(bits, abs=1e-15)


def test_packing_fixture():
    """P/N = 3 in two dimensions: 4 messages."""
    plane = Channel(3.0, 1.0, 2)
    assert plane.messages == 4.0
    assert plane.messages_bits == pytest.approx(2.0)
    assert plane.radius == pytest.approx(math.sqrt(8.0))
    assert plane.message_radius == pytest.approx(math.sqrt(2.0))
    assert rate_bits(4.0, 2) == 1.0


@given(POWERS, POWERS, st.integers(1, 40))
def test_messages_are_the_ratio_of_volumes_and_2_to_the_nC(power, noise, dim):
    """Eq. 2, both forms, and a code of that many words has rate C."""
    given = Channel(power, noise, dim)
    assert given.messages == pytest.approx((given.radius / given.message_radius) ** dim, rel=1e-9)
    assert given.messages == pytest.approx(2.0**given.messages_bits, rel=1e-9)
    assert rate_bits(given.messages, dim) == pytest.approx(given.capacity_bits, rel=1e-9, abs=1e-15)


@given(st.floats(1e-6, 1e6))
def test_capacity_is_the_information_of_a_gaussian_input(snr):
    """Z = X + noise has correlation √(P/(P+N)) with X."""
    nats = gaussian_information([math.sqrt(snr / (1.0 + snr))])
    assert capacity_bits(snr, 1.0) * math.log(2.0) == pytest.approx(nats, rel=1e-6)


def test_limits():
    assert Channel(1.0, 0.0).capacity_bits == Channel(1.0, 0.0).messages == math.inf
    silent = Channel(0.0, 0.0, 5)
    assert (silent.capacity_bits, silent.messages, silent.radius) == (0.0, 1.0, 0.0)
    wide = Channel(3.0, 1.0, 5000)
    assert wide.messages == math.inf
    assert wide.messages_bits == pytest.approx(5000.0)


@pytest.mark.parametrize(("ratio", "db"), [(1, 6.02), (10, 20.83), (1000, 60.0), (0, 0.0)])
def test_decibel_fixtures(ratio, db):
    assert decibels(ratio, 1.0) == pytest.approx(db, abs=0.01)


def test_decibel_limits():
    assert decibels([1.0, 1.0, 0.0], [0.0, math.inf, 2.0]).tolist() == [math.inf, 0.0, 0.0]
    assert decibels(5.0, [5.0, 0.5]).shape == (2,)


@given(POWERS, st.floats(0.01, 120.0))
def test_length_of_noise_is_the_inverse(signal, level):
    assert decibels(signal, noise_length(signal, level)) == pytest.approx(level, rel=1e-9)


def clusters(n=6000, classes=3, dim=4, spread=0.5, seed=0):
    """Class means that are known, and noise around them."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    means = 3.0 * generator.standard_normal((classes, dim))
    return means[labels] + spread * generator.standard_normal((n, dim)), labels, means


def test_a_layer_of_known_clusters():
    t, labels, means = clusters()
    found = layer_channel(t, labels)
    between = np.square(means - means.mean(0)).mean()
    assert found.noise == pytest.approx(0.25, rel=0.03)
    assert found.between == pytest.approx(between, rel=0.03)
    assert found.power == pytest.approx(np.square(t - t.mean(0)).sum() / t.size, rel=1e-12)
    assert found.label_entropy_bits == pytest.approx(math.log2(3))
    assert found.excess_capacity_bits == pytest.approx(4 * capacity_bits(found.power, found.noise) - math.log2(3))
    assert found.separation_bits == pytest.approx(0.5 * math.log2(found.power / found.noise))
    assert (found.dim, found.examples) == (4, 6000)


def test_exact_powers_of_a_small_layer():
    """Means −1 and 1, deviations ±1 around them: N̂ = 1, P̂ = 2, so Ĉ = ½ log₂ 3."""
    found = layer_channel([[-2.0], [0.0], [0.0], [2.0]], [7, 7, -1, -1])
    assert (found.power, found.noise, found.between) == (2.0, 1.0, 1.0)
    assert found.capacity_bits == pytest.approx(0.5 * math.log2(3))
    assert found.separation_bits == pytest.approx(0.5)
    assert found.excess_capacity_bits == pytest.approx(0.5 * math.log2(3) - 1.0)


@given(st.floats(0.1, 10.0), st.floats(-50.0, 50.0), st.integers(0, 100))
def test_capacity_of_a_layer_knows_no_scale_and_no_shift(scale, shift, seed):
    t, labels, _ = clusters(60, seed=seed)
    moved, still = layer_channel(scale * t + shift, labels), layer_channel(t, labels)
    assert moved.capacity_bits == pytest.approx(still.capacity_bits, rel=1e-9)
    assert moved.power == pytest.approx(scale**2 * still.power, rel=1e-9)


def test_labels_that_say_nothing_leave_half_a_bit_and_no_separation():
    generator = np.random.default_rng(0)
    found = layer_channel(generator.standard_normal((20000, 3)), generator.integers(0, 2, 20000))
    assert found.capacity_bits == pytest.approx(0.5, abs=1e-3)
    assert found.separation_bits == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("n", [3, 60000])
@pytest.mark.parametrize("value", [0.1, 1e-30, -1e20])
def test_rounding_is_no_noise(n, value):
    """A constant layer sends nothing, a collapsed one all there is; no quotient of roundings is taken."""
    constant = layer_channel(np.full((n, 2), value), np.arange(n) % 2)
    assert (constant.power, constant.noise, constant.capacity_bits) == (0.0, 0.0, 0.0)
    collapsed = layer_channel(np.where(np.arange(n) % 2, value, 3 * value)[:, None], np.arange(n) % 2)
    assert (collapsed.noise, collapsed.capacity_bits) == (0.0, math.inf)


def test_whatever_holds_activations(monkeypatch):
    """Maps are flattened, narrow numbers widened, gradients left alone; and columns in parts change nothing."""
    maps = torch.randn(40, 3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.arange(40) % 4
    found = layer_channel(maps, labels)
    assert found.dim == 12
    array = maps.detach().numpy().reshape(40, 12)
    assert layer_channel(array, labels.tolist()) == found
    assert layer_channel(maps.bfloat16(), labels).power == pytest.approx(found.power, rel=0.01)
    monkeypatch.setattr(channel, "BLOCK", 200)
    assert layer_channel(array, labels).power == pytest.approx(found.power, rel=1e-12)
    assert layer_channel(array, labels).noise == pytest.approx(found.noise, rel=1e-12)


@pytest.mark.parametrize(
    ("look", "message"),
    [
        (lambda: Channel(-1.0, 1.0), "non-negative power .* got power -1.0"),
        (lambda: Channel(1.0, math.nan), "got power 1.0, noise nan"),
        (lambda: Channel(1.0, 1.0, 0), "dimension 0"),
        (lambda: rate_bits(0.5, 2), "one word"),
        (lambda: decibels(-1.0, 1.0), "not be negative"),
        (lambda: decibels(math.inf, 1.0), "signals must be finite"),
        (lambda: noise_length(1.0, 0.0), "levels positive"),
        (lambda: layer_channel(np.zeros((0, 3)), []), r"at least one of each; got shape \(0, 3\)"),
        (lambda: layer_channel([[math.nan]], [0]), "Has the model diverged"),
        (lambda: layer_channel([["a"]], [0]), "real numbers"),
        (lambda: layer_channel([[1.0], [2.0]], [0]), r"one for each of 2 examples; got int64 of shape \(1,\)"),
        (lambda: layer_channel([[1.0]], [0.5]), "Labels must be integers"),
    ],
)
def test_faults_are_one_sentence(look, message):
    with pytest.raises(DataError, match=message):
        look()
