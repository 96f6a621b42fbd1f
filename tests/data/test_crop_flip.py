from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.core.randomness import example_keys
from isthmus.data.crops import MOVES, crop_flip, draw_moves


def slowly(image: np.ndarray, move: int) -> np.ndarray:
    """One image at a time, as torchvision's RandomCrop(padding=4) and RandomHorizontalFlip do it."""
    edges, flipped = divmod(move, 2)
    top, left = divmod(edges, 9)
    height, width = image.shape[1:]
    padded = np.pad(image, ((0, 0), (4, 4), (4, 4)))
    crop = padded[:, top : top + height, left : left + width]
    return crop[:, :, ::-1] if flipped else crop


@settings(max_examples=25)
@given(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_crop_flip_equals_a_slow_one_for_every_move(channels: int, height: int, width: int, seed: int) -> None:
    every = torch.arange(MOVES)
    images = np.random.default_rng(seed).integers(0, 256, (MOVES, channels, height, width), dtype=np.uint8)
    expected = np.stack([slowly(image, move) for move, image in enumerate(images)])
    np.testing.assert_array_equal(crop_flip(torch.from_numpy(images), every).numpy(), expected)


def test_the_move_in_the_middle_leaves_an_image_alone_and_its_twin_mirrors_it() -> None:
    images = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    middle = torch.full((5,), 2 * (9 * 4 + 4))
    assert torch.equal(crop_flip(images, middle), images)
    assert torch.equal(crop_flip(images, middle + 1), images.flip(3))


def test_moves_are_uniform_and_a_function_of_the_key() -> None:
    keys = example_keys(3, torch.arange(162_000))
    drawn = draw_moves(keys)
    counts = drawn.bincount(minlength=MOVES)
    assert len(counts) == MOVES
    chi_squared = float(((counts - 1000.0) ** 2 / 1000).sum())
    assert 80 < chi_squared < 260  # mean 161, standard deviation 18
    assert torch.equal(draw_moves(keys[100:200]), drawn[100:200])
