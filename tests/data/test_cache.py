from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from isthmus.core import files
from isthmus.core.errors import DataError, FileError
from isthmus.data.cache import cached, folder
from isthmus.data.images import ImageData, Split


class Decoder:
    """Counts how often it decodes."""

    def __init__(self, data: ImageData) -> None:
        self.data, self.calls = data, 0

    def __call__(self) -> tuple[Split, Split]:
        self.calls += 1
        return self.data.train, self.data.test


@pytest.fixture
def decoder(tiny: ImageData) -> Decoder:
    return Decoder(tiny)


def fetch(decoder: Decoder, source: str = "a") -> ImageData:
    return cached("tiny", decoder.data.classes, {"source": source}, decoder)


def only_file(cache: Path) -> Path:
    (file,) = cache.iterdir()
    return file


def test_a_source_is_decoded_once_and_comes_back_bit_for_bit(decoder: Decoder, cache: Path) -> None:
    one, two = fetch(decoder), fetch(decoder)
    assert decoder.calls == 1
    assert one.fingerprint == two.fingerprint == decoder.data.fingerprint
    assert torch.equal(two.test.images, decoder.data.test.images)
    assert torch.equal(two.train.labels, decoder.data.train.labels)
    fetch(decoder, "another source")
    assert decoder.calls == 2
    assert len(list(cache.iterdir())) == 2


def flip_a_pixel(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def forget_a_tensor(path: Path) -> None:
    tensors = load_file(path)
    del tensors["test.labels"]
    save_file(tensors, path, {"fingerprint": "0"})


def drop_metadata(path: Path) -> None:
    save_file(load_file(path), path)


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b"\xff" * 5000),
        flip_a_pixel,
        forget_a_tensor,
        drop_metadata,
    ],
    ids=["empty", "truncated", "garbage", "one bit", "missing tensor", "no fingerprint"],
)
def test_a_corrupt_file_is_made_again_with_a_warning(
    decoder: Decoder, cache: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    fetch(decoder)
    damage(only_file(cache))
    again = fetch(decoder)
    assert decoder.calls == 2
    assert again.fingerprint == decoder.data.fingerprint
    assert "is corrupt" in caplog.text
    assert str(only_file(cache)) in caplog.text
    caplog.clear()
    fetch(decoder)
    assert decoder.calls == 2
    assert caplog.text == ""


def test_a_cache_that_cannot_be_written_or_read_only_logs(
    decoder: Decoder, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("a file where the folder should be")
    assert fetch(decoder).fingerprint == decoder.data.fingerprint
    assert "tiny is not cached and will be decoded again next time: Cannot write" in caplog.text

    def full(path: Path, content: bytes) -> None:
        raise FileError(f"Cannot write {path}: No space left on device.")

    cache.unlink()
    monkeypatch.setattr("isthmus.data.cache.write_bytes", full)
    assert fetch(decoder).fingerprint == decoder.data.fingerprint
    assert "No space left on device" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_a_folder_in_the_place_of_the_file_only_logs(
    decoder: Decoder, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fetch(decoder)
    make_a_folder(only_file(cache))
    assert fetch(decoder).fingerprint == decoder.data.fingerprint
    assert "is not cached" in caplog.text


def test_an_error_while_decoding_leaves_nothing_behind(cache: Path) -> None:
    def broken() -> tuple[Split, Split]:
        raise DataError("image 3 is not readable")

    with pytest.raises(DataError, match="image 3"):
        cached("tiny", ("a", "b"), {}, broken)
    assert not cache.exists()


def test_changing_loaded_tensors_does_not_change_the_file(decoder: Decoder, cache: Path) -> None:
    fetch(decoder)
    before = files.sha256(only_file(cache).read_bytes())
    data = fetch(decoder)
    data.train.images.zero_()
    assert files.sha256(only_file(cache).read_bytes()) == before
    assert fetch(decoder).fingerprint == decoder.data.fingerprint


def test_the_cache_lies_where_the_variable_says_or_in_the_home_folder(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert folder() == cache
    monkeypatch.setenv("ISTHMUS_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder() == tmp_path / ".cache" / "isthmus"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(DataError, match="set ISTHMUS_CACHE"):
        folder()
