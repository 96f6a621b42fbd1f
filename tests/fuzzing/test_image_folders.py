"""Image folders: pictures that are broken, huge, deep, animated or something else, under names that nobody expects."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from isthmus.data.loading import load
from isthmus.data.prefetch import read
from tests.fuzzing.hostile import Draw, pickles, spoiled
from tests.fuzzing.trials import Place, cases, judge, place

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
COLOUR = np.stack([GREY, GREY.T, 255 - GREY], axis=2)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _frames() -> dict[str, object]:
    return {"save_all": True, "append_images": [Image.fromarray(255 - COLOUR)] * 2, "duration": 50}


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int = 8, colour: int = 2, *more: bytes, data: bytes = b"") -> bytes:
    """A PNG with any header."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def bmp(width: int, height: int) -> bytes:
    """The header of a BMP."""
    return b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + struct.pack("<IiiHHI", 40, width, height, 1, 24, 0)


def bomb(megabytes: int) -> bytes:
    """Much that is packed small."""
    return zlib.compress(b"\0" * (megabytes << 20), 9)


RGB, L = Image.fromarray(COLOUR), Image.fromarray(GREY)
PICTURES: dict[str, Callable[[], bytes]] = {
    "png": lambda: encoded(RGB, "PNG"),
    "jpeg": lambda: encoded(RGB, "JPEG"),
    "progressive jpeg": lambda: encoded(RGB, "JPEG", progressive=True),
    "bmp": lambda: encoded(RGB, "BMP"),
    "ppm": lambda: encoded(RGB, "PPM"),
    "tiff": lambda: encoded(RGB, "TIFF"),
    "tiff, packed": lambda: encoded(RGB, "TIFF", compression="tiff_lzw"),
    "webp": lambda: encoded(RGB, "WEBP"),
    "gif": lambda: encoded(RGB.convert("P"), "GIF"),
    "grey": lambda: encoded(L, "PNG"),
    "grey with alpha": lambda: encoded(L.convert("LA"), "PNG"),
    "colour with alpha": lambda: encoded(RGB.convert("RGBA"), "PNG"),
    "palette": lambda: encoded(RGB.convert("P"), "PNG"),
    "palette with transparency": lambda: encoded(RGB.convert("P"), "PNG", transparency=bytes(range(0, 250, 5))),
    "one bit": lambda: encoded(L.convert("1"), "PNG"),
    "CMYK jpeg": lambda: encoded(RGB.convert("CMYK"), "JPEG"),
    "CMYK tiff": lambda: encoded(RGB.convert("CMYK"), "TIFF"),
    "Lab tiff": lambda: encoded(Image.new("LAB", (8, 8)), "TIFF"),
    "16 bits, grey": lambda: encoded(Image.fromarray(GREY.astype(np.uint16) * 200), "PNG"),
    "16 bits, colour": lambda: png(8, 8, 16, 2, data=(b"\0" + b"\x12\x34" * 24) * 8),
    "16 bits, tiff": lambda: encoded(Image.fromarray(GREY.astype(np.uint16) * 200), "TIFF"),
    "32 bits": lambda: encoded(Image.fromarray(GREY.astype(np.int32)), "TIFF"),
    "floats": lambda: encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
    "16 bits, pgm": lambda: b"P5 8 8 65535\n" + b"\x12\x34" * 64,
    "float pfm": lambda: b"Pf 8 8 -1.0\n" + b"\0" * 256,
    "animated gif": lambda: encoded(RGB.convert("P"), "GIF", **_frames()),
    "animated png": lambda: encoded(RGB, "PNG", **_frames()),
    "animated webp": lambda: encoded(RGB, "WEBP", **_frames()),
    "pages of tiff": lambda: encoded(RGB, "TIFF", save_all=True, append_images=[RGB]),
    "zero size": lambda: png(0, 0),
    "zero height": lambda: png(8, 0),
    "no pixels": lambda: png(8, 8),
    "too few pixels": lambda: png(8, 8, data=b"\0" * 30),
    "too many pixels": lambda: png(8, 8, data=b"\0" * 100_000),
    "huge": lambda: png(100_000, 100_000),
    "of the largest size": lambda: png(2**31 - 1, 2**31 - 1),
    "long and thin": lambda: png(2**31 - 1, 1),
    "thin": lambda: png(12_000_000, 1, data=b"\0" * 36_000_001),
    "one pixel wide": lambda: encoded(Image.new("RGB", (1, 4000)), "PNG"),
    "packed pixels": lambda: png(8, 8, 8, 2, data=b"\0" * (32 << 20)),
    "packed text": lambda: png(8, 8, 8, 2, chunk(b"zTXt", b"a\0\0" + bomb(24)), data=b"\0" * 200),
    "packed profile": lambda: png(8, 8, 8, 2, chunk(b"iCCP", b"a\0\0" + bomb(24)), data=b"\0" * 200),
    "odd depth": lambda: png(8, 8, 3),
    "odd colour": lambda: png(8, 8, 8, 5),
    "huge gif": lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0xF0, 0, 0) + b"\0" * 6 + b";",
    "huge ppm": lambda: b"P6 99999 99999 255\n",
    "ppm of long numbers": lambda: b"P6 " + b"9" * 5000 + b" 8 255\n",
    "ppm of negative numbers": lambda: b"P6 -8 -8 255\n" + b"\0" * 192,
    "plain ppm": lambda: b"P3 2 2 255\n" + b"1 2 3 " * 4,
    "plain ppm of words": lambda: b"P3 2 2 255\n" + b"one two three " * 4,
    "huge bmp": lambda: bmp(90_000, 90_000),
    "bmp upside down": lambda: bmp(8, -(2**31)),
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(%pipe%id) (r) file\n",
    "pdf": lambda: b"%PDF-1.4\n%%EOF",
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "html": lambda: b"<!doctype html><script>document.title='run'</script>",
    "icon": lambda: encoded(RGB, "ICO"),
    "tga": lambda: encoded(RGB, "TGA"),
    "jpeg 2000": lambda: b"\0\0\0\x0cjP  \r\n\x87\n",
    "pointer of git-lfs": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
    "empty": lambda: b"",
    "zeros": lambda: b"\0" * 512,
}  # fmt: skip
SOUND = ["png", "jpeg", "progressive jpeg", "bmp", "ppm", "tiff", "tiff, packed", "webp", "gif", "animated gif"]
SUFFIXES = ["png", "png", "PNG", "jpg", "JPEG", "bmp", "gif", "webp", "ppm", "tif", "tiff"]
NAMES = [
    *(
        "a\nb",
        "a\x1b[31mb",
        "<script>document.title='run'<",
        "a\udcff\udcfeb",
        "é" * 60,
        "-rf",
        "%s",
        "a'\"b",
        " ",
        "a\\b",
    ),
    *("\u202eabc", "con", "a\tb", "..a", "a.tar", "*", "?", "$(touch x)", "~", "x" * 200, "a:b", "{0}", "\ufeff", "𝔘"),
]
CHANNELS = st.sampled_from([1, 3])


@st.composite
def pictures(draw: Draw, marker: Path) -> bytes:
    kind = draw(st.sampled_from(["odd", "odd", "spoiled", "spoiled", "pickle"]))
    if kind == "odd":
        return PICTURES[draw(st.sampled_from(sorted(PICTURES)))]()
    if kind == "pickle":
        return draw(st.sampled_from(pickles(marker)))
    return draw(spoiled(PICTURES[draw(st.sampled_from(SOUND))]()))


def layout(here: Place, name: str = "a") -> Path:
    """A folder as ``folder:`` and ``imagenet:`` take it, of two classes with sound images."""
    for part in ("train", "test", "val"):
        for label in (name, "b"):
            for number in range(2):
                here.write(f"images/{part}/{label}/{number}.png", PICTURES["png"]())
    return here.folder / "images"


@pytest.fixture(autouse=True)
def tools_in_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Pillow calls for PostScript, where it is installed: here it only leaves a mark."""
    mark = tmp_path / "called"
    tool = tmp_path / "gs"
    tool.write_text(f"#!/bin/sh\ntouch '{mark}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return mark


def decode(here: Place, kind: str, channels: int, size: int | None = 4) -> None:
    """Load an image folder and decode all of it."""
    os.environ["ISTHMUS_CACHE"] = str(here.folder / "cache")  # a refused folder leaves nothing there either
    if kind == "folder":
        load({"name": "folder", "path": str(here.folder / "images"), "size": size, "channels": channels})
        return
    data = load({"name": "imagenet", "path": str(here.folder / "images"), "size": 4})
    for split in (data.train, data.test):
        everything = torch.arange(len(split))
        assert len(split.images) == len(split)
        assert sum(len(images) for _, images in read(split, [everything], everything)) == len(split)


KINDS = st.sampled_from(["folder", "imagenet"])


@given(data=st.data(), kind=KINDS, channels=CHANNELS, suffix=st.sampled_from(SUFFIXES))
@cases(40, 600)
def test_pictures_are_decoded_or_refused(
    data: st.DataObject, kind: str, channels: int, suffix: str, tools_in_reach: Path
) -> None:
    with place() as here:
        part = data.draw(st.sampled_from(["train", "test" if kind == "folder" else "val"]))
        layout(here)
        here.write(f"images/{part}/a/odd.{suffix}", data.draw(pictures(here.marker)))
        judge(f"image in {kind}:", here, lambda: decode(here, kind, channels))
        assert not tools_in_reach.exists()


@pytest.mark.parametrize("picture", sorted(PICTURES))
def test_each_odd_picture_is_decoded_or_refused(picture: str, tools_in_reach: Path) -> None:
    for kind in ("folder", "imagenet"):
        with place() as here:
            layout(here)
            here.write("images/train/a/odd.png", PICTURES[picture]())
            judge(f"image in {kind}:", here, lambda here=here, kind=kind: decode(here, kind, 3))
            assert not tools_in_reach.exists(), "an image called a program"


@given(data=st.data(), kind=KINDS)
@cases(12, 200)
def test_odd_names_are_taken_or_refused(data: st.DataObject, kind: str) -> None:
    names = st.sampled_from(NAMES) | st.text(max_size=20).filter(lambda text: "/" not in text and "\0" not in text)
    with place() as here:
        label, name = data.draw(names), data.draw(names)
        try:
            layout(here, label or "a")
            for part in ("train", "test", "val"):
                here.write(f"images/{part}/{label or 'a'}/{name}.png", PICTURES["png"]())
        except (OSError, ValueError):  # no file can be called so
            return
        judge(f"names in {kind}:", here, lambda: decode(here, kind, 3))


def _loop(here: Place) -> None:
    (here.folder / "images/train/a/loop.png").symlink_to("loop.png")


def _loop_of_folders(here: Place) -> None:
    (here.folder / "images/train/loop").symlink_to("loop")


def _folder_in_itself(here: Place) -> None:
    (here.folder / "images/train/a/again").symlink_to("..")
    (here.folder / "images/train/again").symlink_to(".")


def _only_dangling(here: Place) -> None:
    for file in (here.folder / "images/train/a").iterdir():
        file.unlink()
        file.symlink_to("nowhere")


def _folders_for_files(here: Place) -> None:
    for file in (here.folder / "images/train/a").iterdir():
        file.unlink()
        file.mkdir()


def _pipe(here: Place) -> None:
    os.mkfifo(here.folder / "images/train/a/pipe.png")


def _device(here: Place) -> None:
    (here.folder / "images/train/a/zeros.png").symlink_to("/dev/zero")


def _root_loop(here: Place) -> None:
    (here.folder / "images").rename(here.folder / "elsewhere")
    (here.folder / "images").symlink_to("images")


def _root_file(here: Place) -> None:
    (here.folder / "images").rename(here.folder / "elsewhere")
    here.write("images", b"")


def _all_empty(here: Place) -> None:
    for file in here.folder.rglob("*.png"):
        file.write_bytes(b"")


def _unreadable(here: Place) -> None:
    for file in here.folder.rglob("0.png"):
        file.chmod(0)


def _closed(here: Place) -> None:
    (here.folder / "images/train/a").chmod(0)


def _too_deep(here: Place) -> None:
    deep = here.folder / "images/train/a"
    for _ in range(40):
        deep = deep / ("d" * 50)
    deep.mkdir(parents=True)


def _many_names(here: Place) -> None:
    for number in range(200):
        here.write(f"images/train/a/{number:04}.txt", b"")


SPOILING = [
    *(_loop, _loop_of_folders, _folder_in_itself, _only_dangling, _folders_for_files, _pipe, _device, _root_loop),
    *(_root_file, _all_empty, _unreadable, _closed, _too_deep, _many_names),
]


@pytest.mark.parametrize("kind", ["folder", "imagenet"])
@pytest.mark.parametrize("spoil", SPOILING, ids=lambda spoil: spoil.__name__.strip("_"))
def test_folders_that_are_not_what_they_should_be(spoil: Callable[[Place], None], kind: str) -> None:
    with place() as here:
        layout(here)
        spoil(here)
        judge(f"folder for {kind}:", here, lambda: decode(here, kind, 3))


PATHS = [
    "~nobody-of-that-name/x",
    "a\0b",
    "x" * 5000,
    "a/" * 3000,
    "",
    " ",
    "..",
    "/",
    "/dev/null",
    "/proc/self/mem",
    "\udcff",
]


@pytest.mark.parametrize("kind", ["folder", "imagenet"])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: ascii(path)[:20])
def test_paths_that_lead_nowhere_are_refused(kind: str, path: str) -> None:
    with place() as here:
        os.environ["ISTHMUS_CACHE"] = str(here.folder / "cache")
        assert judge(f"folder for {kind}:", here, lambda: load({"name": kind, "path": path})) == "refused"
