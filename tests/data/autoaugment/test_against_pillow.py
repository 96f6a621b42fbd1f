"""Every operation gives Pillow's bytes, on photographs, on noise, and on images of few values or few pixels."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.autoaugment import one_by_one
from isthmus.core.randomness import example_keys
from isthmus.data.autoaugment.apply import GREY, apply
from isthmus.data.autoaugment.operations import KIND, KINDS, LEVELS, Operations, draw

WITH_PILLOW = [kind for kind in KINDS if kind != "cutout"]


def alone(kind: str, levels: torch.Tensor, variants: torch.Tensor) -> Operations:
    """One operation in the first stage and nothing in the second."""
    nothing = torch.zeros_like(levels)
    columns = ((nothing + KIND[kind], nothing), (levels, nothing), (variants, nothing))
    return Operations(*(torch.stack(pair, 1) for pair in columns))


def every_level_and_way(kind: str, images: int) -> Operations:
    rows = torch.arange(images)
    return alone(kind, rows % LEVELS, rows // LEVELS % 2 * 512)


def check(images: torch.Tensor, operations: Operations) -> None:
    before = images.clone()
    np.testing.assert_array_equal(apply(images, operations).numpy(), one_by_one(images.numpy(), operations))
    assert torch.equal(images, before)


@pytest.fixture(scope="module")
def photographs(real_mirror: Path) -> torch.Tensor:
    """The first 500 test images of CIFAR-10, decoded here: the loader would decode all 60,000."""
    table = pyarrow.parquet.read_table(next((real_mirror / "uoft-cs/cifar10/plain_text").glob("test-*.parquet")))
    cells = table.slice(0, 500).column("img").to_pylist()
    pixels = np.stack([np.asarray(Image.open(BytesIO(cell["bytes"]))) for cell in cells])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize("kind", WITH_PILLOW)
def test_photographs(kind: str, photographs: torch.Tensor) -> None:
    check(photographs, every_level_and_way(kind, len(photographs)))


@pytest.mark.parametrize("policy", ["published", "released", "imagenet"])
def test_whole_sub_policies_on_photographs(policy: str, photographs: torch.Tensor) -> None:
    drawn = draw(example_keys(1, torch.arange(len(photographs))), policy)
    with_pillow = (drawn.kinds != KIND["cutout"]).all(1).nonzero().squeeze(1)
    check(photographs[with_pillow], drawn.at(with_pillow))


@pytest.mark.parametrize("kind", WITH_PILLOW)
@settings(max_examples=25)
@given(
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    values=st.integers(1, 256),
    seed=st.integers(0, 2**31),
)
def test_noise_of_few_or_many_values(kind: str, channels: int, height: int, width: int, values: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    palette = generator.integers(0, 256, values, dtype=np.uint8)
    images = torch.from_numpy(generator.choice(palette, (2 * LEVELS, channels, height, width)))
    check(images, every_level_and_way(kind, 2 * LEVELS))


def test_pairs_of_dark_and_bright_bytes_is_stretched_alike() -> None:
    """Autocontrast computes in doubles and drops the fraction: one wrong rounding is one wrong byte."""
    low, high = torch.triu_indices(256, 256)[:, ::3]
    images = torch.stack([low, (low + high) // 2, (2 * low + high) // 3, high], 1).byte().view(-1, 1, 2, 2)
    check(images, alone("autocontrast", torch.zeros_like(low), torch.zeros_like(low)))


@pytest.mark.parametrize("kind", ["brightness", "color"])
def test_every_byte_at_every_level_is_blended_alike(kind: str) -> None:
    byte = torch.arange(256, dtype=torch.uint8)
    image = torch.stack([byte, byte.flip(0), byte.roll(85)]).view(3, 16, 16)
    check(image.expand(2 * LEVELS, 3, 16, 16), every_level_and_way(kind, 2 * LEVELS))


def test_an_image_is_changed_alike_alone_and_in_a_batch() -> None:
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    drawn = draw(example_keys(2, torch.arange(64)), "released")
    whole = apply(images, drawn)
    for row in range(64):
        assert torch.equal(apply(images[row : row + 1], drawn.at(torch.tensor([row]))), whole[row : row + 1])


def test_a_cutout_paints_a_square_of_twice_its_level_in_the_mean_colour() -> None:
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    painted = apply(images, alone("cutout", torch.tensor([3]), torch.tensor([10 * 32 + 20])))[0]
    expected = images[0].clone()
    expected[:, 7:13, 17:23] = torch.tensor(GREY, dtype=torch.uint8).view(3, 1, 1)
    assert torch.equal(painted, expected)


def test_a_cutout_finds_its_place_in_images_of_any_size() -> None:
    images = torch.zeros(1, 1, 4, 8, dtype=torch.uint8)
    painted = apply(images, alone("cutout", torch.tensor([1]), torch.tensor([31 * 32 + 31])))[0, 0]
    assert painted.nonzero().tolist() == [[2, 6], [2, 7], [3, 6], [3, 7]]
