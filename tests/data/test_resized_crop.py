from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from isthmus.core.randomness import example_keys
from isthmus.data.crops import TRIES, draw_parts, part_box, resized_crop


@given(st.integers(20, 700), st.integers(20, 700), st.integers(0, 10**6))
def test_a_part_lies_inside_and_has_an_area_and_a_form_that_are_allowed(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = part_box(width, height, np.random.default_rng(seed).random(41).tolist())
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    across, down = right - left, bottom - top
    slack = 1 / min(across, down)  # sides are whole pixels
    assert 3 / 4 * (1 - slack) <= across / down <= 4 / 3 * (1 + slack)
    # of a long strip, where no part fits, the largest central one may be less than 8%
    assert across * down >= min(0.08 * width * height, min(width, height) ** 2) - across - down


def test_areas_are_uniform_and_forms_are_as_often_wide_as_tall() -> None:
    """In a square image few parts are drawn again, and those cover nearly the whole image."""
    drawn = draw_parts(example_keys(3, torch.arange(4000))).tolist()
    boxes = [part_box(1000, 1000, row) for row in drawn]
    areas = np.array([(right - left) * (bottom - top) / 1e6 for left, top, right, bottom in boxes])
    wide = np.array([right - left > bottom - top for left, top, right, bottom in boxes])
    small = areas < 0.5
    assert abs(np.mean(areas[small] < 0.29) - 0.5) < 0.04  # the middle of .08 and .5
    assert abs(wide.mean() - 0.5) < 0.03
    lefts = np.array([left / (1000 - right + left) for left, _, right, _ in boxes if right - left < 1000])
    assert abs(lefts.mean() - 0.5) < 0.02
    assert lefts.max() <= 1
    assert abs(np.mean([row[-1] < 0.5 for row in drawn]) - 0.5) < 0.03


def test_where_no_part_fits_the_largest_central_one_is_taken() -> None:
    whole = [0.999, 0.5, 0.0, 0.0] * TRIES + [0.9]  # all of a wide image as a square is higher than the image
    assert part_box(300, 100, whole) == (83, 0, 216, 100)
    assert part_box(100, 300, whole) == (0, 83, 100, 216)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_part_is_what_pillow_makes_of_it(interpolation: str, channels: int) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (50, 70, channels), dtype=np.uint8)
    image = Image.fromarray(pixels.squeeze(-1) if channels == 1 else pixels)
    for row in draw_parts(example_keys(0, torch.arange(20))).tolist():
        made = resized_crop(image, row, (24, 16), interpolation)
        left, top, right, bottom = part_box(70, 50, row)
        part = Image.fromarray(np.asarray(image)[top:bottom, left:right].copy())
        expected = np.asarray(part.resize((16, 24), getattr(Image.Resampling, interpolation.upper())))
        expected = expected[:, ::-1] if row[-1] < 0.5 else expected
        assert np.array_equal(made, expected.reshape(24, 16, channels))


def test_draws_are_a_function_of_the_key() -> None:
    keys = example_keys(1, torch.arange(50))
    some = torch.tensor([7, 3, 49])
    assert torch.equal(draw_parts(keys)[some], draw_parts(keys[some]))
    assert not math.isclose(float(draw_parts(keys)[0, 0]), float(draw_parts(keys)[1, 0]))
