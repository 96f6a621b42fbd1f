from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from isthmus.core.errors import ConfigError, DataError
from isthmus.core.randomness import example_keys, fold
from isthmus.data.batches import Batches
from isthmus.data.crops import draw_parts, resized_crop
from isthmus.data.imagenet import MEAN, STD, ImageNet
from isthmus.data.images import Split, as_float
from isthmus.data.loading import load
from isthmus.data.on_demand import FileSplit, central

WNIDS = ("n01440764", "n01443537", "n02102040")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes of 5 + 2 photographs' sizes: wide, tall and square, smooth enough for JPEG."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 5), ("val", 2)):
        for name in WNIDS:
            folder = tmp_path / "ilsvrc" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                size = [(60, 48), (48, 64), (50, 50)][i % 3]
                small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
                small.resize(size, Image.Resampling.BICUBIC).save(folder / f"{name}_{i}.JPEG")
    return tmp_path / "ilsvrc"


def config(root: Path, **options: object) -> ImageNet:
    return ImageNet(path=str(root), size=32, **options)  # type: ignore[arg-type]


def test_folders_are_the_classes_in_the_order_of_their_names(root: Path) -> None:
    data = load(f"imagenet:{root}")
    assert data.classes == WNIDS
    assert data.shape == (3, 224, 224)
    assert data.train.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (data.mean, data.std) == (MEAN, STD)


def test_the_validation_images_alone_can_be_audited_on_but_not_trained_on(root: Path) -> None:
    whole = load(f"imagenet:{root}")
    shutil.rmtree(root / "train")
    data = load(f"imagenet:{root}")
    assert (data.classes, data.test_only) == (WNIDS, True)
    assert torch.equal(data.test.select(torch.arange(6)).images, whole.test.select(torch.arange(6)).images)
    with pytest.raises(DataError, match="has test images only; add train/<class>/ folders"):
        data.training_split()
    shutil.rmtree(root / "val")
    with pytest.raises(DataError, match=r"has no folder val; give the folder that holds val/<class>/ and, to train"):
        load(f"imagenet:{root}")


def test_no_file_is_opened_before_it_is_needed(root: Path) -> None:
    for file in root.rglob("*.JPEG"):
        file.write_bytes(b"x" * file.stat().st_size)
    data = load(config(root))
    assert len(data.train.select(torch.tensor([3, 1]))) == 2
    with pytest.raises(DataError, match=r"train/n01440764/n01440764_3.JPEG is not a readable image"):
        _ = data.train.select(torch.tensor([3, 1])).images


def test_for_evaluation_the_shorter_side_is_scaled_and_the_centre_cut_out(root: Path) -> None:
    data = load(config(root, interpolation="bicubic"))
    image = Image.open(root / "val" / WNIDS[1] / f"{WNIDS[1]}_1.JPEG")  # 48×64
    scaled = image.resize((37, 49), Image.Resampling.BICUBIC)  # 32 · 256/224 = 36.6
    expected = np.asarray(scaled)[8:40, 2:34]
    assert np.array_equal(data.test.images[3].permute(1, 2, 0).numpy(), expected)


def test_the_centre_is_torchvisions() -> None:
    """Resize: the longer side is cut to whole pixels; CenterCrop: margins are rounded halves, to the even number."""
    ramp = np.arange(500 * 375, dtype=np.int64).reshape(375, 500) % 251
    image = Image.fromarray(ramp.astype(np.uint8)).convert("RGB")
    found = central(image, 256, 224, "bilinear")
    scaled = image.resize((int(256 * 500 / 375), 256), Image.Resampling.BILINEAR)  # 341 wide: a margin of 58.5
    assert np.array_equal(found, np.asarray(scaled)[16:240, 58:282])


def test_images_are_read_in_the_order_of_the_selection(root: Path) -> None:
    test = load(config(root)).test
    order = torch.tensor([5, 0, 3])
    assert torch.equal(test.select(order).images, test.images[order])
    assert torch.equal(test.select(order).labels, test.labels[order])


def test_batches_are_the_same_as_of_images_in_memory(root: Path) -> None:
    split = load(config(root)).train
    held = Split(split.images, split.labels)
    for a, b in zip(Batches(split, 4, seed=1).epoch(1), Batches(held, 4, seed=1).epoch(1), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_random_part_is_taken_of_the_file_and_not_of_the_scaled_image(root: Path) -> None:
    split = load(config(root)).train
    keys = fold(example_keys(4, torch.arange(15)), "batches/epoch", 2, "batches/resized_crop")
    batch = next(Batches(split, 15, seed=4, augment="imagenet").epoch(2))
    for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
        file = root / "train" / split.names[index]  # type: ignore[attr-defined]
        made = resized_crop(Image.open(file), draw_parts(keys[index : index + 1])[0].tolist(), (32, 32))
        assert torch.equal(image, as_float(torch.from_numpy(made.copy()).permute(2, 0, 1)))


@pytest.mark.parametrize("augment", ["imagenet", "imagenet_autoaugment"])
def test_any_batch_can_be_made_again_alone(root: Path, augment: str) -> None:
    def batches(**options: int) -> Batches:
        return Batches(load(config(root)).train, 4, seed=2, augment=augment, drop_last=True, **options)

    whole = list(batches().epoch(3))
    for start in (0, 1, 2, 3):
        resumed = list(batches().epoch(3, start))
        assert len(resumed) == len(whole) - start
        for a, b in zip(whole[start:], resumed, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    for rank in (0, 1):
        for a, b in zip(whole, batches(rank=rank, world=2).epoch(3), strict=True):
            assert torch.equal(a.images[rank::2], b.images)
    other = next(batches().epoch(4))
    first = {int(i): image for i, image in zip(whole[0].indices, whole[0].images, strict=True)}
    again = {int(i): image for i, image in zip(other.indices, other.images, strict=True)}
    assert all(not torch.equal(first[i], again[i]) for i in set(first) & set(again))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_in_memory_can_be_cropped_too(channels: int) -> None:
    images = torch.randint(0, 256, (6, channels, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(images, torch.arange(6) % 2)
    batch = next(Batches(split, 6, augment="imagenet", shuffle=False).epoch())
    keys = fold(example_keys(0, torch.arange(6)), "batches/epoch", 0, "batches/resized_crop")
    for row in range(6):
        pixels = images[row].permute(1, 2, 0).numpy().squeeze()
        made = resized_crop(Image.fromarray(np.ascontiguousarray(pixels)), draw_parts(keys)[row].tolist(), (20, 24))
        assert torch.equal(batch.images[row], as_float(torch.from_numpy(made.copy()).permute(2, 0, 1)))


def test_reading_stops_where_nobody_asks_any_more(root: Path) -> None:
    before = {thread.name for thread in threading.enumerate()}
    batches = Batches(load(config(root)).train, 2).epoch()
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not {thread.name for thread in threading.enumerate() if "isthmus-read" in thread.name} - before


def test_the_fingerprint_follows_names_lengths_labels_and_how_files_are_read(root: Path) -> None:
    first = load(config(root)).fingerprint
    assert load(config(root)).fingerprint == first
    assert load(config(root, interpolation="bicubic")).fingerprint != first
    assert load(config(root, train_limit=6)).fingerprint != first
    file = root / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG"
    file.write_bytes(file.read_bytes() + b" ")
    assert load(config(root)).fingerprint != first


def test_limits_keep_files_unread(root: Path) -> None:
    data = load(config(root, train_limit=6, test_limit=3))
    assert isinstance(data.train, FileSplit)
    assert data.train.labels.bincount().tolist() == [2, 2, 2]
    assert (len(data.test), data.mean) == (3, MEAN)


def unlink_val(root: Path) -> None:
    (root / "val").rename(root / "validation")


def flatten_val(root: Path) -> None:
    for file in (root / "val").rglob("*.JPEG"):
        file.rename(root / "val" / file.name)
    for folder in (root / "val").iterdir():
        if folder.is_dir():
            folder.rmdir()


def foreign_class(root: Path) -> None:
    (root / "val" / WNIDS[0]).rename(root / "val" / "n99999999")


def empty_class(root: Path) -> None:
    for file in (root / "train" / WNIDS[0]).iterdir():
        file.rename(file.with_suffix(".txt"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (unlink_val, "has no folder val; give the folder that holds val/<class>/"),
        (flatten_val, "val has no <class>/ folders"),
        (foreign_class, "n99999999 is a class without training images"),
        (empty_class, "train/n01440764 holds no image"),
    ],
)
def test_folders_that_do_not_fit_are_named(root: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(root)
    with pytest.raises(DataError, match=words):
        load(config(root))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no folder .*nowhere"):
        load(f"imagenet:{tmp_path / 'nowhere'}")


def test_a_centre_larger_than_the_scaled_image_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="shorter=30 leaves no 32×32"):
        load({"name": "imagenet", "path": str(root), "size": 32, "shorter": 30})


def test_a_broken_file_is_named_in_the_middle_of_an_epoch(root: Path) -> None:
    file = root / "train" / WNIDS[2] / f"{WNIDS[2]}_1.JPEG"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match=f"{file.name} is not a readable image"):
        list(Batches(load(config(root)).train, 4, augment="imagenet").epoch())
