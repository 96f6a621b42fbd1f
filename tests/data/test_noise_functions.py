"""Noise functions: what each destroys and what it keeps; and blobs with an oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from isthmus.data import noise_functions
from isthmus.data.toys import Blobs

IMAGES = torch.rand(64, 3, 9, 7, generator=torch.Generator().manual_seed(0))


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "noise",
    [
        lambda images, g: noise_functions.gaussian_noise(images, 0.1, g),
        lambda images, g: noise_functions.mask(images, 0.5, g, size=2),
        lambda images, g: noise_functions.shift(images, 2, g),
    ],
    ids=["gaussian_noise", "mask", "shift"],
)
def test_each_is_a_pure_function_of_its_generator(noise):
    before, images = IMAGES.clone(), IMAGES.double()
    first, again, other = (noise(images, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == images.shape
    assert first.dtype == images.dtype
    assert torch.equal(IMAGES, before)


def test_gaussian_noise_has_its_variance():
    added = noise_functions.gaussian_noise(torch.zeros(200, 1, 20, 20), 0.3, generator())
    assert float(added.std()) == pytest.approx(0.3, rel=0.02)
    assert torch.equal(noise_functions.gaussian_noise(IMAGES, 0.0, generator()), IMAGES)


@pytest.mark.parametrize("size", [1, 3])
def test_masking_blackens_whole_squares_in_all_channels(size):
    masked = noise_functions.mask(torch.ones(300, 2, 7, 7), 0.3, generator(), size)
    assert torch.equal(masked[:, 0], masked[:, 1])
    assert set(masked.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(masked[..., :size, :size], masked[..., :1, :1].expand(-1, -1, size, size))
    assert float(1 - masked.mean()) == pytest.approx(0.3, abs=0.03)
    assert not noise_functions.mask(IMAGES, 1.0, generator()).any()
    assert torch.equal(noise_functions.mask(IMAGES, 0.0, generator()), IMAGES)


def test_masking_leaves_no_trace_of_what_is_not_finite():
    assert not noise_functions.mask(torch.full((1, 1, 2, 2), math.nan), 1.0, generator()).any()


@pytest.mark.parametrize("sigma", [0.6, 1.5])
def test_blur_is_scipy_s(sigma):
    expected = ndimage.gaussian_filter(
        IMAGES.double().numpy(), (0, 0, sigma, sigma), mode="nearest", radius=(0, 0, *(math.ceil(3 * sigma),) * 2)
    )
    np.testing.assert_allclose(noise_functions.blur(IMAGES.double(), sigma).numpy(), expected, atol=1e-9)


def test_shifts_move_the_content_and_fill_with_black():
    dot = torch.zeros(500, 1, 9, 9)
    dot[:, :, 4, 4] = 1.0
    moved = noise_functions.shift(dot, 2, generator())
    assert torch.equal(moved.sum((1, 2, 3)), torch.ones(500))
    assert {tuple(at.tolist()) for at in moved[:, 0].nonzero()[:, 1:]} == {
        (row, column) for row in range(2, 7) for column in range(2, 7)
    }
    assert torch.equal(noise_functions.shift(IMAGES, 0, generator()), IMAGES)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 99))
def test_the_oracle_picks_from_the_own_class(labels, seed):
    given_labels = torch.tensor(labels)
    assert torch.equal(given_labels[noise_functions.same_class(given_labels, generator(seed))], given_labels)


def test_the_oracle_picks_each_of_a_class_equally_often():
    labels = torch.tensor([0, 1, 1, 0, 1]).repeat(4000)
    index = noise_functions.same_class(labels, generator())
    share = float((index[labels == 1] < len(labels) // 2).float().mean())
    assert share == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise_functions.gaussian_noise(IMAGES, -1.0, generator()), "negative"),
        (lambda: noise_functions.mask(IMAGES, 1.5, generator()), r"\[0, 1\]"),
        (lambda: noise_functions.blur(IMAGES, 0.0), "positive"),
        (lambda: noise_functions.shift(IMAGES, -1, generator()), "negative"),
    ],
)
def test_wrong_strengths_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_blobs_tell_their_class_as_well_as_they_say():
    """The plug-in estimate of H(Y) − H(Y|X) from the exact posterior lies between the two bounds."""
    blobs = Blobs(classes=5, distance=3.0)
    points = blobs.sample(40_000, generator())
    centres = torch.eye(5) * 3.0 / math.sqrt(2.0)
    log_posterior = torch.log_softmax(-0.5 * torch.cdist(points.features, centres).square(), 1)
    estimate = math.log(5) + float(log_posterior.gather(1, points.labels[:, None]).mean())
    low, high = blobs.information
    assert high == math.log(5)
    assert low < estimate < high
    assert Blobs(10, 12.0).information[0] == pytest.approx(math.log(10), abs=1e-6)
    assert float(torch.cdist(centres, centres)[0, 1]) == pytest.approx(3.0)
