from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.core.randomness import example_keys
from isthmus.data.crops import cutout, draw_centres


def slowly(image: np.ndarray, row: int, column: int, side: int) -> np.ndarray:
    """One image at a time, by slices, as in Google's released code of AutoAugment for even sides."""
    cut = image.copy()
    top, left = row - side // 2, column - side // 2
    cut[:, max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = 0
    return cut


@settings(max_examples=50)
@given(
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 12),
    st.integers(0, 2**31),
)
def test_cutout_equals_a_slow_one(channels: int, height: int, width: int, side: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(1, 256, (20, channels, height, width), dtype=np.uint8)
    places = draw_centres(example_keys(seed, torch.arange(20)), height, width)
    expected = np.stack([slowly(image, *place, side) for image, place in zip(images, places.tolist(), strict=True)])
    np.testing.assert_array_equal(cutout(torch.from_numpy(images), places, side).numpy(), expected)


def test_centres_are_uniform_and_a_function_of_the_key() -> None:
    keys = example_keys(3, torch.arange(60_000))
    drawn = draw_centres(keys, 6, 10)
    counts = (drawn[:, 0] * 10 + drawn[:, 1]).bincount(minlength=60)
    assert len(counts) == 60
    assert 20 < float(((counts - 1000.0) ** 2 / 1000).sum()) < 120  # mean 59, standard deviation 11
    assert torch.equal(draw_centres(keys[100:200], 6, 10), drawn[100:200])


def test_a_square_inside_takes_side_by_side_pixels() -> None:
    cut = cutout(torch.full((1, 3, 32, 32), 9, dtype=torch.uint8), torch.tensor([[16, 8]]), 16)
    assert (cut == 0).sum() == 3 * 16 * 16
    assert (cut[:, :, 8:24, :16] == 0).all()
