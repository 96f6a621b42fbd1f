from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import isthmus
from isthmus.audits.target import ModelSource, audit_run
from isthmus.core.errors import ConfigError, DataError
from isthmus.data.folder import ImageFolder
from isthmus.data.loading import load

Pictures = Callable[..., np.ndarray]


@pytest.fixture
def fill(pictures: Pictures) -> Callable[..., np.ndarray]:
    """Write n random 6×7 images into a folder; gives their pixels."""

    def write(where: Path, n: int, *shape: int, seed: int = 0) -> np.ndarray:
        images = pictures(n, *(shape or (6, 7, 3)), seed=seed)
        where.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(where / f"{i:03d}.png")
        return images

    return write


@pytest.fixture
def parted(tmp_path: Path, fill: Callable[..., np.ndarray]) -> Path:
    """train/ and test/ with the classes cat and dog."""
    for seed, (split, name, n) in enumerate(
        [("train", "cat", 5), ("train", "dog", 4), ("test", "cat", 2), ("test", "dog", 3)]
    ):
        fill(tmp_path / "pets" / split / name, n, seed=seed)
    return tmp_path / "pets"


def test_train_and_test_folders_are_the_splits(parted: Path, pictures: Pictures) -> None:
    data = load(f"folder:{parted}")
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [0] * 5 + [1] * 4
    assert data.test.labels.tolist() == [0] * 2 + [1] * 3
    expected = np.concatenate([pictures(2, 6, 7, 3, seed=2), pictures(3, 6, 7, 3, seed=3)])
    assert torch.equal(data.test.images, torch.from_numpy(expected).permute(0, 3, 1, 2))


def test_class_folders_alone_are_split_by_a_fixed_stratified_fraction(
    tmp_path: Path, fill: Callable[..., np.ndarray]
) -> None:
    everything = np.concatenate([fill(tmp_path / "all" / name, n, seed=n) for name, n in (("a", 10), ("b", 20))])
    config = ImageFolder(path=str(tmp_path / "all"), test_fraction=0.3)
    data, again = load(config), load(config)
    assert data.fingerprint == again.fingerprint
    assert data.test.labels.bincount().tolist() == [3, 6]
    served = [image.permute(1, 2, 0).numpy().tobytes() for split in (data.train, data.test) for image in split.images]
    assert sorted(served) == sorted(image.tobytes() for image in everything)


def test_a_part_that_is_split_off_is_noted(parted: Path) -> None:
    assert load({"name": "folder", "path": str(parted / "train"), "test_fraction": 0.25}).note == (
        "25% of each class, a fixed choice, are the test split, since there is no test/"
    )
    assert load(f"folder:{parted}").note == ""


def test_a_test_split_alone_is_audited_on_and_not_trained_on(
    parted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load(f"folder:{parted}")
    shutil.rmtree(parted / "train")
    data = load(f"folder:{parted}")
    assert torch.equal(data.test.images, whole.test.images)
    assert data.classes == whole.classes
    with pytest.raises(DataError, match="has test images only; add train/<class>/ folders"):
        data.training_split()
    recipe = {"name": "r", "data": f"folder:{parted}", "model": {"backbone": "mlp"}, "objective": "ceb"}
    with pytest.raises(DataError, match="has test images only"):
        isthmus.train(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()
    (tmp_path / "pets_cnn.py").write_text(
        "from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(126, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    page = audit_run(ModelSource(model="pets_cnn:build", data=f"folder:{parted}"), checks=["accuracy"])
    assert page.exists()


def test_an_order_of_classes_that_counts_otherwise_is_said(
    tmp_path: Path, fill: Callable[..., np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("1", "2", "10"):
        fill(tmp_path / "digits" / name, 5)
    assert load(f"folder:{tmp_path / 'digits'}").classes == ("1", "10", "2")
    (record,) = caplog.records
    assert "alphabetical order of the classes, 1, 10, 2, so that label 1 is '10'" in record.getMessage()
    chosen = load({"name": "folder", "path": str(tmp_path / "digits"), "classes": ["1", "2", "10"]})
    assert chosen.classes == ("1", "2", "10")
    assert len(caplog.records) == 1


def test_options_are_given_as_text_too(parted: Path) -> None:
    assert load(f"{{name: folder, path: {parted}, channels: 1}}").shape == (1, 6, 7)
    with pytest.raises(ConfigError, match="is no mapping in YAML"):
        load("{name: folder")


def test_classes_called_train_and_plane_are_not_taken_for_splits(
    tmp_path: Path, fill: Callable[..., np.ndarray]
) -> None:
    for name in ("train", "plane"):
        fill(tmp_path / "vehicles" / name, 5)
    assert load(f"folder:{tmp_path / 'vehicles'}").classes == ("plane", "train")


def test_images_are_served_from_the_cache_until_a_file_changes(
    parted: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, fill: Callable[..., np.ndarray]
) -> None:
    before = load(f"folder:{parted}")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "PIL", None)
        assert load(f"folder:{parted}").fingerprint == before.fingerprint
    fill(parted / "test" / "cat", 2, seed=50)
    os.utime(parted / "test" / "cat" / "000.png", ns=(1, 1))
    assert load(f"folder:{parted}").fingerprint != before.fingerprint


def test_grey_and_size_are_what_pillow_makes_of_the_files(parted: Path) -> None:
    data = load({"name": "folder", "path": str(parted), "channels": 1, "size": 4})
    assert data.shape == (1, 4, 4)
    with Image.open(parted / "train" / "cat" / "000.png") as image:
        centre = image.convert("L").crop((0, 0, 7, 6)).resize((4, 4), Image.Resampling.BILINEAR, box=(0.5, 0, 6.5, 6))
    assert torch.equal(data.train.images[0, 0], torch.from_numpy(np.array(centre)))


def test_images_of_different_sizes_need_a_size(parted: Path, fill: Callable[..., np.ndarray]) -> None:
    fill(parted / "train" / "dog", 1, 9, 7, 3)
    with pytest.raises(DataError, match=r"dog/000.png is 9×7 \(height×width\) but .*cat/000.png is 6×7; set size"):
        load(f"folder:{parted}")
    assert load({"name": "folder", "path": str(parted), "size": 5}).shape == (3, 5, 5)


def test_a_test_split_of_another_size_needs_a_size_too(tmp_path: Path, fill: Callable[..., np.ndarray]) -> None:
    for name in ("a", "b"):
        fill(tmp_path / "two" / "train" / name, 2)
        fill(tmp_path / "two" / "test" / name, 2, 8, 8, 3)
    with pytest.raises(DataError, match=r"two/test/a/000.png is 8×8 .*two/train/a/000.png is 6×7; set size"):
        load(f"folder:{tmp_path / 'two'}")


def test_files_that_are_no_images_are_left_out_with_a_warning(parted: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = load(f"folder:{parted}").fingerprint
    (parted / "train" / "cat" / "notes.txt").write_text("good cats")
    (parted / "train" / "cat" / ".hidden").write_text("")
    (parted / "train" / ".git").mkdir()
    assert load(f"folder:{parted}").fingerprint == before
    assert "1 files that are not images are ignored, such as notes.txt" in caplog.text


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"not a picture", "cannot identify"), (b"", "cannot identify"), (None, "truncated|broken|incomplete")],
    ids=["text", "empty", "truncated"],
)
def test_an_unreadable_file_is_named(parted: Path, content: bytes | None, words: str) -> None:
    file = parted / "train" / "dog" / "002.png"
    file.write_bytes(file.read_bytes()[:-60] if content is None else content)
    with pytest.raises(DataError, match=rf"{file} is not a readable image: .*({words})"):
        load(f"folder:{parted}")


def test_sixteen_bit_pixels_are_refused_rather_than_clipped(parted: Path) -> None:
    file = parted / "train" / "dog" / "002.png"
    Image.fromarray(np.full((6, 7), 40_000, dtype=np.uint16)).save(file)
    with pytest.raises(DataError, match=f"{file} has pixels of mode 'I;16'; save it with 8 bits"):
        load(f"folder:{parted}")


def test_folders_that_cannot_be_used_are_named(tmp_path: Path, parted: Path, fill: Callable[..., np.ndarray]) -> None:
    def fails(path: Path, words: str) -> None:
        with pytest.raises(DataError, match=words):
            load(f"folder:{path}")

    fails(tmp_path / "nothing", f"There is no folder {tmp_path / 'nothing'}")
    fails(parted / "train" / "cat" / "000.png", "There is no folder .*000.png")
    (tmp_path / "hollow").mkdir()
    fails(tmp_path / "hollow", "hollow has no <class>/ folders with images")
    (tmp_path / "hollow" / "a").mkdir()
    fails(tmp_path / "hollow", r"hollow/a holds no image \(.png, ")
    fill(tmp_path / "single" / "a", 5)
    fails(tmp_path / "single", "at least two classes")
    fill(tmp_path / "lonely" / "a", 1)
    fill(tmp_path / "lonely" / "b", 1)
    fails(tmp_path / "lonely", "too few images for test_fraction=0.2")
    fill(tmp_path / "half" / "train" / "a", 2)
    fails(
        tmp_path / "half",
        r"half has train/<class>/ folders but no test/<class>/ folders; add it, or give .*half/train",
    )
    fails(tmp_path / "half" / "train" / "a", "a has no <class>/ folders")
    fill(parted / "test" / "fish", 1)
    fails(parted, r"test/fish is a class without training images .*cat, dog")


def test_a_folder_that_may_not_be_read_is_an_error_of_the_data(parted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(DataError, match=r"Cannot read the image folder .*pets: .*Permission denied"):
        load(f"folder:{parted}")


def test_without_pillow_it_says_what_to_install(parted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"pip install 'isthmus\[hub\]'"):
        load(f"folder:{parted}")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("folder", "path: Field required"),
        ("folder:", "path: String should have at least 1 character"),
        ({"name": "folder", "path": "x", "channels": 2}, "channels: Input should be 1 or 3"),
        ({"name": "folder", "path": "x", "size": 0}, "size: Input should be greater than 0"),
        ({"name": "folder", "path": "x", "test_fraction": 1.0}, "test_fraction: Input should be less than 1"),
        ({"name": "folder", "path": "x", "sise": 3}, "Did you mean 'size'"),
    ],
)
def test_options_that_do_not_fit_are_named(given: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(given)  # type: ignore[arg-type]
