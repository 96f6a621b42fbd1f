"""Corruptions by name: what is promised of all of them, and of what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from isthmus.core.errors import ConfigError, DataError
from isthmus.core.randomness import example_keys
from isthmus.data.corruptions import weather
from isthmus.data.corruptions.apply import corrupt, parameters_for
from isthmus.data.corruptions.parameters import TABLES
from isthmus.metrics import CORRUPTIONS

SHAPES = [(1, 28), (3, 28), (1, 32), (3, 32), (3, 224)]


def photographs(count: int, channels: int, size: int) -> torch.Tensor:
    """Smooth shapes with some texture, all of the range."""
    random = np.random.default_rng(size)
    images = ndimage.gaussian_filter(random.random((count, channels, size, size)), (0, 0, size / 16, size / 16))
    images = (images - images.min((1, 2, 3), keepdims=True)) / np.ptp(images, (1, 2, 3), keepdims=True)
    return torch.from_numpy((images * 235 + random.random(images.shape) * 20).astype(np.uint8))


def frost(channels: int) -> list[torch.Tensor]:
    return list(photographs(3, channels, 260))


def keys(count: int, seed: int = 0) -> torch.Tensor:
    return example_keys(seed, torch.arange(count))


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize(
    ("channels", "size"),
    [pytest.param(*shape, marks=pytest.mark.slow if shape[1] == 224 else []) for shape in SHAPES],
    ids=str,
)
def test_images_keep_shape_and_type_and_are_changed(corruption: str, channels: int, size: int) -> None:
    images = photographs(2, channels, size)
    before = images.clone()
    found = corrupt(images, corruption, 5, keys(2), frost=frost(channels))
    assert found.dtype == torch.uint8
    assert found.shape == images.shape
    assert torch.equal(images, before)
    assert (found.float() - images.float()).abs().mean() > 1
    assert found.float().std() > 0


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_an_image_is_corrupted_alike_in_every_batch_and_order(corruption: str) -> None:
    images, photos = photographs(360, 3, 32), frost(3)  # more than one part of a batch
    whole = corrupt(images, corruption, 4, keys(360), frost=photos)
    order = torch.randperm(360, generator=torch.Generator().manual_seed(0))[:50]
    some = corrupt(images[order], corruption, 4, keys(360)[order], frost=photos)
    assert torch.equal(some, whole[order])
    alone = corrupt(images[7:8], corruption, 4, keys(360)[7:8], frost=photos)
    assert torch.equal(alone, whole[7:8])


RANDOM = set(CORRUPTIONS) - {
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_other_keys_give_other_images_where_a_corruption_is_random(corruption: str) -> None:
    image = photographs(1, 3, 32).expand(2, -1, -1, -1)
    first, second = corrupt(image, corruption, 3, keys(2), frost=frost(3))
    assert torch.equal(first, second) == (corruption not in RANDOM)
    again = corrupt(image, corruption, 3, keys(2, seed=1), frost=frost(3))
    assert torch.equal(first, again[0]) == (corruption not in RANDOM)


def test_corruptions_and_severities_draw_numbers_of_their_own() -> None:
    grey = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)
    signs = [(corrupt(grey, "gaussian_noise", severity, keys(1)).float() - 127.5).sign() for severity in (1, 2)]
    assert abs((signs[0] * signs[1]).mean()) < 0.1


# What the published severities mix: blur and displacement, several photographs, rough fog of less contrast, ...
UNEVEN = {"elastic_transform", "frost", "snow", "glass_blur"}


@pytest.mark.parametrize(
    ("channels", "size", "uneven"), [(3, 32, UNEVEN), (1, 28, {*UNEVEN, "fog", "pixelate"})], ids=["32", "28"]
)
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_severities_lead_ever_farther_away(corruption: str, channels: int, size: int, uneven: set[str]) -> None:
    images, photos = photographs(24, channels, size), frost(channels)
    found = [corrupt(images, corruption, severity, keys(24), frost=photos).float() for severity in range(1, 6)]
    far = [float((corrupted - images).square().mean()) for corrupted in found]
    assert min(far) > 1
    if corruption not in uneven:
        assert far == sorted(far)


@given(st.integers(24, 60), st.sampled_from([1, 3]), st.sampled_from(sorted(TABLES)), st.sampled_from(CORRUPTIONS))
@settings(max_examples=12)
def test_any_size_may_have_the_parameters_that_are_named(size: int, channels: int, named: str, corruption: str) -> None:
    images = photographs(1, channels, size)
    found = corrupt(images, corruption, 3, keys(1), named, frost(channels))
    assert found.shape == images.shape


def test_no_image_is_no_work() -> None:
    assert corrupt(torch.empty(0, 3, 32, 32, dtype=torch.uint8), "fog", 1, keys(0)).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_images_have_answers(corruption: str, level: int) -> None:
    flat = torch.full((2, 3, 32, 32), level, dtype=torch.uint8)
    found = corrupt(flat, corruption, 3, keys(2), frost=frost(3))
    if corruption in ("defocus_blur", "zoom_blur", "glass_blur", "motion_blur", "contrast", "pixelate"):
        assert torch.equal(found, flat)


def test_every_table_has_five_severities_of_every_corruption() -> None:
    for table in TABLES.values():
        assert set(table) == set(CORRUPTIONS)
        for severities in table.values():
            assert len(severities) == 5
            assert len({len(numbers) for numbers in severities}) == 1


@pytest.mark.parametrize(
    ("shape", "named", "said"),
    [
        ((1, 8, 8), None, "28×28, 32×32, 224×224 pixels; got images of 1×8×8"),
        ((1, 8, 8), "mnist_c", "from 24×24 pixels on"),
        ((3, 64, 64), None, "`parameters` is one of"),
        ((3, 32, 28), None, "square images"),
        ((4, 32, 32), None, "1 or 3 channels"),
    ],
)
def test_sizes_that_have_no_parameters_are_refused(shape: tuple[int, ...], named: str | None, said: str) -> None:
    with pytest.raises(DataError, match=said):
        parameters_for(shape, named)


def test_what_is_not_there_is_refused() -> None:
    images = photographs(2, 3, 32)
    with pytest.raises(ConfigError, match="gaussian_noise"):
        corrupt(images, "gausian_noise", 1, keys(2))
    with pytest.raises(ConfigError, match="from 1 to 5; got 6"):
        corrupt(images, "fog", 6, keys(2))
    with pytest.raises(ConfigError, match="cifar10_c"):
        corrupt(images, "fog", 1, keys(2), parameters="cifar_c")
    with pytest.raises(DataError, match=r"bytes \(torch.uint8\) and N keys; got torch.float32"):
        corrupt(images.float(), "fog", 1, keys(2))
    with pytest.raises(DataError, match="and 3 keys"):
        corrupt(images, "fog", 1, keys(3))
    with pytest.raises(DataError, match="Frost needs photographs"):
        corrupt(images, "frost", 1, keys(2))
    with pytest.raises(DataError, match="more than 32×32"):
        corrupt(images, "frost", 1, keys(2), frost=[images[0]])
    with pytest.raises(DataError, match="must have 3 channels"):
        corrupt(images, "frost", 1, keys(2), frost=frost(1))


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """A folder with the five photographs; pixels are column numbers, which show the columns that are used."""
    folder = tmp_path / "imagecorruptions" / "frost"
    folder.mkdir(parents=True)
    for number, name in enumerate(weather.FROST_FILES):
        columns = np.broadcast_to(np.arange(250, dtype=np.uint8)[None, :, None], (200 + number, 250, 3))
        Image.fromarray(np.ascontiguousarray(columns)).save(folder / name, quality=100)
    return folder


def test_photographs_of_frost_are_read_whole_or_shrunk(five: Path) -> None:
    whole = weather.load_frost(five, 1, shrunk=False)
    assert [tuple(photo.shape) for photo in whole] == [(1, 200 + n, 250) for n in range(5)]
    shrunk = weather.load_frost(five, 3, shrunk=True)
    assert torch.equal(shrunk[0][0, 0], torch.arange(2, 250, 5).byte())
    assert [photo.shape[1] for photo in shrunk] == [round((200 + n) / 5) for n in range(5)]
    (five / "frost3.png").unlink()
    with pytest.raises(DataError, match="lacks frost3.png"):
        weather.load_frost(five, 3, shrunk=True)


def test_photographs_are_found_in_the_package_that_has_them_without_importing_it(
    five: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (five.parent / "__init__.py").write_text("raise ImportError('as the real one does')")
    monkeypatch.syspath_prepend(str(five.parent.parent))
    assert weather.frost_folder() == five
    assert weather.PACKAGE not in sys.modules
