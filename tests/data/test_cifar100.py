"""CIFAR-100 from the published archive's pickles, which are read without running code, and from a mirror of the hub."""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch

from isthmus.core.errors import DataError
from isthmus.data.cifar100 import CLASSES
from isthmus.data.loading import load
from isthmus.data.safe_pickle import read_pickle


def written(file: Path, count: int, protocol: int = 2, **changed: object) -> np.ndarray:
    """A file of the archive: images of other bytes each, with labels 0, 1, …; gives the bytes."""
    data = np.random.default_rng(count).integers(0, 256, (count, 3072), dtype=np.uint8)
    labels = [index % 100 for index in range(count)]
    content = {b"data": data, b"fine_labels": labels, b"coarse_labels": labels, b"filenames": [b"a.png"] * count}
    content |= {key.encode(): value for key, value in changed.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(content, protocol))
    return data


@pytest.fixture
def archive(tmp_path: Path) -> dict[str, np.ndarray]:
    folder = tmp_path / "cifar-100-python"
    return {"train": written(folder / "train", 200), "test": written(folder / "test", 100)}


def test_the_archive_is_read_in_its_own_order(archive: dict[str, np.ndarray], tmp_path: Path) -> None:
    data = load({"name": "cifar100", "path": str(tmp_path / "cifar-100-python")})
    assert data.train.images.shape == (200, 3, 32, 32)
    image = archive["train"][7]
    assert data.train.images[7, 1, 2, 3] == image[1024 + 2 * 32 + 3], "red, green, blue; rows of 32"
    assert torch.equal(data.test.images.flatten(1), torch.from_numpy(archive["test"]))
    assert data.test.labels.tolist() == list(range(100))
    assert data.classes[11] == "boy"
    assert len(data.classes) == 100


def test_a_mirror_with_the_archive_or_the_hubs_files(
    archive: dict[str, np.ndarray], mirror: Callable[..., Path], png: Callable[..., bytes], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    for split in ("train", "test"):
        files = mirror("uoft-cs/cifar100/cifar100", split, [png(image) for image in images], list(range(100)), "img")
        table = pyarrow.parquet.read_table(files)
        pyarrow.parquet.write_table(table.rename_columns(["img", "fine_label"]), files)
    root = files.parents[3]
    data = load("cifar100")
    assert torch.equal(data.test.images, torch.from_numpy(images).permute(0, 3, 1, 2))
    (tmp_path / "cifar-100-python").rename(root / "cifar-100-python")
    assert torch.equal(load("cifar100").test.images.flatten(1), torch.from_numpy(archive["test"]))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    data = written(tmp_path / "train", 3, protocol)
    found = read_pickle(tmp_path / "train", "")
    np.testing.assert_array_equal(found["data"], data)
    assert found["fine_labels"] == [0, 1, 2]


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    """Its strings are the opcode BINSTRING or SHORT_BINSTRING, and the array names numpy.core.multiarray."""
    raw = bytes(range(6)) * 512
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )
    content = b"\x80\x02}(U\x04data" + array + b"U\x0bfine_labels](K\x05eu."
    pickletools.dis(content, io.StringIO())  # is well-formed
    file = tmp_path / "train"
    file.write_bytes(content)
    found = read_pickle(file, "")
    np.testing.assert_array_equal(found["data"], np.frombuffer(raw, np.uint8)[None])
    assert found["fine_labels"] == [5]


class Harmful:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("which", ["data", "fine_labels", "filenames"])
def test_no_code_is_run(tmp_path: Path, which: str) -> None:
    written(tmp_path / "train", 3, **{which: Harmful(tmp_path / "harm")})
    with pytest.raises(DataError, match=r"not a pickle of plain data .*would run code"):
        read_pickle(tmp_path / "train", "Copy it again.")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": np.zeros((3, 10), np.uint8)}, r"holds \(3, 10\) as data; expected bytes of shape"),
        ({"data": np.zeros((3, 3072))}, "an array of other numbers than bytes"),
        ({"data": None}, "holds no array as data"),
        ({"fine_labels": [1, 2]}, "one whole number per image"),
        ({"fine_labels": [1, 2, 2.5]}, "one whole number per image"),
        ({"fine_labels": [0, 1, 100]}, "100"),
    ],
)
def test_other_content_is_one_sentence(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    written(tmp_path / "train", 200)
    written(tmp_path / "test", 3, **changed)
    with pytest.raises(DataError, match=message):
        load({"name": "cifar100", "path": str(tmp_path)})


def test_missing_and_damaged_files_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"no .*train. Unpack cifar-100-python.tar.gz"):
        load({"name": "cifar100", "path": str(tmp_path)})
    written(tmp_path / "train", 200)
    (tmp_path / "test").write_bytes(b"\x80\x02}")
    with pytest.raises(DataError, match=r"test is not a pickle of plain data"):
        load({"name": "cifar100", "path": str(tmp_path)})
    (tmp_path / "test").write_bytes(pickle.dumps([1]))
    with pytest.raises(DataError, match=r"holds list; expected a dictionary"):
        load({"name": "cifar100", "path": str(tmp_path)})
    monkeypatch.setenv("ISTHMUS_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"uoft-cs/cifar100.*or give the folder cifar-100-python as the option path"):
        load("cifar100")


def test_the_classes_are_those_of_the_archive() -> None:
    names = CLASSES.split()
    assert names == sorted(names)
    assert len(set(names)) == 100
