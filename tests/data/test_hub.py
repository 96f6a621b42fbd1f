"""Loading from mirrors that the tests make, and every way in which that can fail, on the example of SVHN."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isthmus.core.errors import DataError
from isthmus.data import hub
from isthmus.data.cifar10 import CIFAR10
from isthmus.data.loading import load
from isthmus.data.svhn import SVHN

PLACE = "ufldl-stanford/svhn/cropped_digits"

Mirror = Callable[..., Path]
Pictures = Callable[..., np.ndarray]
Png = Callable[..., bytes]


@pytest.fixture
def svhn(mirror: Mirror, pictures: Pictures, png: Png) -> dict[str, np.ndarray]:
    """A mirror with 20 digits to train on, 10 to test on and 10 extra ones; gives their pixels."""
    sizes = {"train": 20, "test": 10, "extra": 10}
    pixels = {split: pictures(n, 32, 32, 3, seed=n) for split, n in sizes.items()}
    for split, images in pixels.items():
        mirror(PLACE, split, [png(image) for image in images], [i % 10 for i in range(len(images))])
    return pixels


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def test_svhn_comes_with_its_pixels_and_labels(svhn: dict[str, np.ndarray]) -> None:
    data = load("svhn")
    assert torch.equal(data.train.images, as_tensor(svhn["train"]))
    assert torch.equal(data.test.images, as_tensor(svhn["test"]))
    assert data.train.labels.tolist() == [*range(10), *range(10)]
    assert data.classes == tuple("0123456789")
    assert data.train.images.is_contiguous()


def test_svhn_extra_is_appended_and_cached_apart(svhn: dict[str, np.ndarray], cache: Path) -> None:
    plain, more = load("svhn"), load({"name": "svhn", "extra": True})
    assert torch.equal(more.train.images[:20], plain.train.images)
    assert torch.equal(more.train.images[20:], as_tensor(svhn["extra"]))
    assert len(list(cache.iterdir())) == 2


def test_shards_are_read_in_order(mirror: Mirror, pictures: Pictures, png: Png) -> None:
    images = pictures(30, 32, 32, 3)
    for k in range(3):
        part = slice(10 * k, 10 * (k + 1))
        mirror(PLACE, "train", [png(x) for x in images[part]], list(range(10)), shard=(k, 3))
    mirror(PLACE, "test", [png(x) for x in images[:10]], list(range(10)))
    assert torch.equal(load("svhn").train.images, as_tensor(images))


def test_limits_apply_after_the_cache(svhn: dict[str, np.ndarray], cache: Path) -> None:
    assert len(load({"name": "svhn", "train_limit": 10, "test_limit": 3}).test) == 3
    assert len(load("svhn").test) == 10
    assert len(list(cache.iterdir())) == 1


def test_a_cached_load_needs_neither_datasets_nor_pillow(
    svhn: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load("svhn")
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert load("svhn").fingerprint == first.fingerprint


def test_a_changed_mirror_is_decoded_again(
    svhn: dict[str, np.ndarray], mirror: Mirror, pictures: Pictures, png: Png
) -> None:
    before = load("svhn").fingerprint
    file = mirror(PLACE, "test", [png(x) for x in pictures(10, 32, 32, 3, seed=77)], list(range(10)))
    os.utime(file, ns=(1, 1))
    assert load("svhn").fingerprint != before


def test_grey_images_in_colour_files_become_grey(mirror: Mirror, pictures: Pictures, png: Png) -> None:
    grey = pictures(10, 28, 28)
    for split in ("train", "test"):
        mirror("ylecun/mnist/mnist", split, [png(np.stack([x] * 3, -1)) for x in grey], list(range(10)))
    assert torch.equal(load("mnist").train.images, torch.from_numpy(grey).unsqueeze(1))


@pytest.mark.parametrize(("module", "words"), [("datasets", "package datasets"), ("PIL", "needs Pillow")])
def test_without_the_extra_it_says_what_to_install(
    svhn: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, module: str, words: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for name in [name for name in sys.modules if name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(DataError, match=rf"{words}.*pip install 'isthmus\[hub\]'"):
        load("svhn")


def test_a_mirror_without_the_data_set_says_how_to_fill_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError) as caught:
        load("svhn")
    for words in (
        str(tmp_path / "nowhere" / PLACE / "train-00000-of-00001.parquet"),
        "hf download ufldl-stanford/svhn --repo-type dataset --local-dir MIRROR/ufldl-stanford/svhn",
        "unset ISTHMUS_DATA",
    ):
        assert words in str(caught.value)


def test_a_missing_shard_is_not_taken_for_a_smaller_data_set(
    svhn: dict[str, np.ndarray], mirror: Mirror, png: Png, pictures: Pictures
) -> None:
    mirror(PLACE, "train", [png(pictures(1, 32, 32, 3)[0])], [0], shard=(1, 3))
    with pytest.raises(DataError, match=r"shards of .*train are not complete: there is train-00000-of-00001.parquet, "):
        load("svhn")


def test_a_link_that_points_nowhere_is_named(svhn: dict[str, np.ndarray]) -> None:
    file = Path(os.environ["ISTHMUS_DATA"]) / PLACE / "test-00000-of-00001.parquet"
    file.unlink()
    file.symlink_to("../blobs/0123")
    with pytest.raises(DataError, match=r"Cannot read the mirror: .*No such file.*test-00000-of-00001.parquet"):
        load("svhn")


def test_a_revision_cannot_be_chosen_from_a_mirror(svhn: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match=r"revision='v1' cannot be chosen from the mirror"):
        load({"name": "svhn", "revision": "v1"})


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing", "half"], ids=["empty", "garbage", "truncated"])
def test_a_corrupt_parquet_file_is_named(svhn: dict[str, np.ndarray], mirror: Mirror, content: Any) -> None:
    file = Path(os.environ["ISTHMUS_DATA"]) / PLACE / "train-00000-of-00001.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(DataError, match=r"Cannot read .*train-00000-of-00001.parquet: .*corrupt, copy it again"):
        load("svhn")


def test_other_columns_are_listed(mirror: Mirror, png: Png, pictures: Pictures) -> None:
    for split in ("train", "test"):
        mirror(PLACE, split, [png(x) for x in pictures(10, 32, 32, 3)], list(range(10)), column="img")
    with pytest.raises(DataError, match="has the columns img, label; expected image and label"):
        load("svhn")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda images, labels: images.__setitem__(3, b"\x89PNG\r\n\x1a\nbroken"),
            "row 3 is not a readable image",
        ),
        (lambda images, labels: images.__setitem__(3, images[3][:-900]), "row 3 is not a readable image"),
        (lambda images, labels: images.__setitem__(3, None), "row 3 holds no image"),
        (
            lambda images, labels: labels.__setitem__(4, None),
            "row 4 has the label None; expected a class index",
        ),
        (lambda images, labels: labels.__setitem__(4, 10), r"train.labels\[4\] is 10; with 10 classes"),
        (lambda images, labels: labels.__setitem__(4, -1), r"train.labels\[4\] is -1"),
        (lambda images, labels: labels.__setitem__(4, 5), r"no training example for 1 of 10 classes \(4\)"),
    ],
    ids=[
        "undecodable",
        "truncated",
        "no image",
        "no label",
        "too large",
        "negative",
        "missing class",
    ],
)
def test_rows_that_cannot_be_used_are_named(
    mirror: Mirror, png: Png, pictures: Pictures, spoil: Callable[[list[Any], list[Any]], None], words: str
) -> None:
    images: list[Any] = [png(x) for x in pictures(10, 32, 32, 3)]
    labels: list[Any] = list(range(10))
    mirror(PLACE, "test", images, labels)
    spoil(images, labels)
    mirror(PLACE, "train", images, labels)
    with pytest.raises(DataError, match=words):
        load("svhn")


def test_a_mirror_in_a_folder_with_an_odd_name_is_read(
    svhn: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "a [1] mirror*, ünder {x}"
    (tmp_path / "mirror").rename(odd)
    monkeypatch.setenv("ISTHMUS_DATA", str(odd))
    assert len(load("svhn").train) == 20


def test_reading_a_mirror_leaves_nothing_in_the_hubs_cache(svhn: dict[str, np.ndarray]) -> None:
    import datasets

    hub_cache = Path(datasets.config.HF_DATASETS_CACHE)
    before = set(hub_cache.glob("*"))
    load("svhn")
    assert set(hub_cache.glob("*")) == before


def test_a_progress_bar_goes_to_the_terminal_and_nothing_to_a_pipe(
    svhn: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load("svhn")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    load({"name": "svhn", "extra": True})
    out, err = capsys.readouterr()
    assert out == ""
    assert "decoding svhn/extra" in err


def test_images_of_two_sizes_are_named(mirror: Mirror, png: Png, pictures: Pictures) -> None:
    images = [png(x) for x in pictures(9, 32, 32, 3)] + [png(pictures(1, 32, 30, 3)[0])]
    for split in ("train", "test"):
        mirror(PLACE, split, images, list(range(10)))
    with pytest.raises(DataError, match=r"image 9 is 32×30 \(height×width\) but .* image 0 is 32×32"):
        load("svhn")


def test_a_split_without_rows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.load_dataset", FakeHub({"train": []}))
    with pytest.raises(DataError, match="ufldl-stanford/svhn: split train has no rows"):
        load("svhn")


class FakeHub:
    """Replaces datasets.load_dataset with a network: returns a table of rows, or raises an error."""

    def __init__(self, rows: dict[str, list[dict[str, Any]]], error: Exception | None = None, after: int = 0) -> None:
        self.rows, self.error, self.after, self.asked = rows, error, after, []

    def __call__(self, path: str, name: str, *, split: str, revision: str | None, streaming: bool) -> FakeHub:
        self.asked.append((path, name, split, revision, streaming))
        if self.error is not None and self.after == 0:
            raise self.error
        self.column_names = None  # as for some streamed tables: not known before the first row
        self.split = split
        return self

    def cast_column(self, column: str, feature: Any) -> FakeHub:
        assert feature.decode is False
        return self

    def iter(self, batch_size: int) -> Iterator[dict[str, list[Any]]]:
        rows = self.rows[self.split]
        for start in range(0, len(rows), 4):
            if self.error is not None and start >= self.after:
                raise self.error
            part = rows[start : start + 4]
            yield {key: [row[key] for row in part] for key in part[0]}


@pytest.fixture
def hub_rows(pictures: Pictures, png: Png) -> dict[str, list[dict[str, Any]]]:
    cells = [{"bytes": png(x), "path": None} for x in pictures(10, 32, 32, 3)]
    rows = [{"image": cell, "label": i} for i, cell in enumerate(cells)]
    return {"train": rows, "test": rows[::-1]}


def test_without_a_mirror_the_hub_is_asked_once_and_by_revision(
    hub_rows: dict[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub(hub_rows)
    monkeypatch.setattr("datasets.load_dataset", hub)
    one = load({"name": "svhn", "revision": "abc"})
    assert load({"name": "svhn", "revision": "abc"}).fingerprint == one.fingerprint
    place = ("ufldl-stanford/svhn", "cropped_digits")
    assert hub.asked == [(*place, "train", "abc", True), (*place, "test", "abc", True)]
    load("svhn")
    assert len(hub.asked) == 4
    assert one.test.labels.tolist() == list(range(9, -1, -1))


@pytest.mark.parametrize("after", [0, 4], ids=["at once", "in the middle"])
def test_no_network_says_how_to_use_a_mirror(
    hub_rows: dict[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, cache: Path, after: int
) -> None:
    error = ConnectionError("Couldn't reach 'ufldl-stanford/svhn' on the Hub\n(LocalEntryNotFoundError)")
    monkeypatch.setattr("datasets.load_dataset", FakeHub(hub_rows, error, after))
    with pytest.raises(DataError) as caught:
        load("svhn")
    message = str(caught.value)
    assert message.startswith(
        "Cannot get ufldl-stanford/svhn (config cropped_digits, split train) from the Hugging Face"
    )
    assert "ISTHMUS_DATA=MIRROR (layout: <org>/<name>/<config>/<split>-00000-of-00001.parquet)" in message
    assert "hf download ufldl-stanford/svhn" in message
    assert "\n" not in message
    assert not cache.exists()


def test_data_of_a_mirror_say_whether_they_are_the_published_ones(svhn: dict[str, np.ndarray], monkeypatch) -> None:
    """Recognised by their fingerprint, also in parts; data of the hub itself need no note."""
    unknown = load("svhn")
    assert unknown.note == hub.UNKNOWN
    monkeypatch.setitem(SVHN.source.known, unknown.fingerprint, "upside down")
    assert load("svhn").note == "upside down"
    part = load({"name": "svhn", "train_limit": 10, "classes": ["1", "7"]})
    assert part.note == "upside down"
    assert part.fingerprint != unknown.fingerprint
    monkeypatch.setitem(SVHN.source.known, unknown.fingerprint, "")
    assert load("svhn").note == ""


def test_the_mirrored_cifar10_that_went_through_jpeg_is_known() -> None:
    (note,) = CIFAR10.source.known.values()
    assert "JPEG at quality 75" in note
    assert "shuffled" in note
