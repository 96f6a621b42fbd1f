"""``parquet:PATH``: rows of a hub data set's shards, decoded when they are needed, as ``imagenet:PATH`` does."""

import io
import tracemalloc
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

import isthmus
from isthmus.core.errors import DataError
from isthmus.data.batches import Batches
from isthmus.data.loading import load
from isthmus.data.parquet import RowSplit

NAMES = ["n01440764", "n01443537", "n01484850"]


def photograph(seed: int, width: int = 60, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image) -> dict[str, object]:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def shard(folder: Path, split: str, number: int, of: int, labels: list[int], named: bool = True) -> None:
    label = datasets.ClassLabel(names=NAMES) if named else datasets.Value("int64")
    features = datasets.Features({"image": datasets.Image(decode=False), "label": label})
    cells = {"image": [encoded(photograph(100 * number + i)) for i in range(len(labels))], "label": labels}
    path = folder / "data" / f"{split}-{number:05d}-of-{of:05d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(cells, features=features).to_parquet(str(path))


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two shards to train on and one to validate, and a place for what ``datasets`` makes of them."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "imagenet-1k"
    for number in range(2):
        shard(folder, "train", number, 2, [0, 1, 2, 0, 1])
    shard(folder, "validation", 0, 1, [2, 0, 1])
    return folder


def test_rows_are_those_of_the_shards_in_order(mirror: Path) -> None:
    data = load({"name": "parquet", "path": str(mirror), "size": 32})
    assert isinstance(data.train, RowSplit)
    assert data.classes == tuple(NAMES)
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1] * 2
    assert data.train.shape == (3, 32, 32)
    # as the files themselves would be read
    files = mirror.parent / "files"
    for part, count in (("train", 10), ("val", 3)):
        for i in range(count):
            label = (data.train if part == "train" else data.test).labels[i]
            (files / part / NAMES[label]).mkdir(parents=True, exist_ok=True)
            photograph(100 * (i // 5) + i % 5).save(files / part / NAMES[label] / f"{i}.png")
    expected = load({"name": "imagenet", "path": str(files), "size": 32})
    order = torch.tensor([int(Path(name).stem) for name in expected.train.names])  # type: ignore[attr-defined]
    assert torch.equal(data.train.select(order).images, expected.train.images)


def test_processes_read_their_own_shares_of_the_batches_of_one(mirror: Path) -> None:
    split = load({"name": "parquet", "path": str(mirror), "size": 16}).train
    options = {"seed": 3, "augment": "imagenet", "drop_last": True}
    whole = list(Batches(split, 4, **options).epoch(1))
    shares = [list(Batches(split, 4, rank=rank, world=2, **options).epoch(1)) for rank in (0, 1)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert not set(parts[0].indices.tolist()) & set(parts[1].indices.tolist())
        for rank, part in enumerate(parts):
            assert torch.equal(part.images, batch.images[rank::2])


def test_a_model_trains_on_rows_and_goes_on_with_them(mirror: Path, tmp_path: Path) -> None:
    recipe = {
        "name": "rows",
        "data": {"name": "parquet", "path": str(mirror), "size": 16},
        "model": {"backbone": {"name": "mlp", "hidden": [8]}, "dim": 2},
        "objective": "ceb",
        "training": {"epochs": 2, "batch_size": 5, "accelerator": "cpu", "augment": "imagenet"},
    }
    assert isthmus.train(recipe, out=tmp_path / "run", progress=False).info()["result"]["step"] == 4
    assert isthmus.train(recipe, out=tmp_path / "run", progress=False).info()["data"]["train"] == 10


def test_images_stay_on_the_disk(mirror: Path) -> None:
    tracemalloc.start()
    split = load({"name": "parquet", "path": str(mirror), "size": 512}).train
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2**20 * 4, "ten images of 512×512 are 8 MB"
    assert "10 rows of 2 files" in repr(split)


def test_classes_without_names_are_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for split in ("train", "test"):
        shard(tmp_path / "set", split, 0, 1, [0, 1, 2], named=False)
    data = load({"name": "parquet", "path": str(tmp_path / "set"), "test": "test", "size": 8})
    assert data.classes == ("0", "1", "2")


def broken(folder: Path) -> None:
    path = next(folder.rglob("train-00001*.parquet"))
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda folder: None, {"test": "dev"}, r"holds no dev-\*.parquet.*name its splits"),
        (lambda folder: None, {"label": "target"}, "has the columns image, label; expected image and target"),
        (broken, {}, "Cannot read .*If a file is corrupt, copy it again"),
        (lambda folder: shard(folder, "train", 0, 2, []), {"train": "train-00000"}, "Cannot read|no training|at least"),
    ],
    ids=["no such split", "no such column", "a damaged shard", "an empty shard"],
)
def test_what_cannot_be_read_is_explained(mirror: Path, change, options: dict[str, str], words: str) -> None:
    change(mirror)
    with pytest.raises(DataError, match=words):
        load({"name": "parquet", "path": str(mirror), "size": 8, **options})


def test_a_row_that_is_no_image_is_named(mirror: Path) -> None:
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=NAMES)})
    cells = {"image": [{"bytes": b"no image", "path": None}, {"bytes": None, "path": "/etc/passwd"}], "label": [0, 1]}
    datasets.Dataset.from_dict(cells, features=features).to_parquet(
        str(mirror / "data/validation-00000-of-00001.parquet")
    )
    test = load({"name": "parquet", "path": str(mirror), "size": 8}).test
    with pytest.raises(DataError, match="row 0 of the split is not a readable image"):
        test.prepared(0, None)
    with pytest.raises(DataError, match="row 1 of the split holds no image"):
        test.prepared(1, None)  # and the file that it names is not opened
