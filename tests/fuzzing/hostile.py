"""Hostile input: values, keys and texts that break naive code, and informed damage to what is sound."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from isthmus.core.errors import shown
from tests.fuzzing.trials import Payload

Draw = Callable[[st.SearchStrategy[Any]], Any]


def nested(depth: int, leaf: Any = 0) -> Any:
    """Lists in lists."""
    for _ in range(depth):
        leaf = [leaf]
    return leaf


SCALARS: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 2**31, -(2**63), 2**63, 10**30, 0.5, -0.0, 1e-320, 1e308, 1e400, -1e400),
    *("", " ", "\n", "\t", "\0", "a\0b", "nan", "inf", "-inf", "1e999", "null", "true", "0x10", "1_000", "١٢"),
    *(
        "..",
        "../..",
        "/",
        "~nobody-of-that-name",
        "~",
        "-",
        "--help",
        "%s%n%x",
        "{0.__class__}",
        "{{ 7 * 7 }}",
        "$(id)",
    ),
    *(
        "os:system",
        "__import__",
        "builtins:eval",
        "a.b.c",
        "digits",
        "mlp",
        "ceb",
        "vib",
        "linf:0.1",
        "full",
        "float64",
    ),
    *("<script>document.title='run'</script>", "\"'&<>", "[red]x[/red]", "[/]", "[link=x]", "\x1b[31m\x1b]0;t\x07"),
    *("\u202e\u2066abc", "\ud800", "e\u0301" * 3, "𝔘", "\ufeff", "\u2028", "x" * 300, "2020-99-99"),
]
"""Single values, each the ruin of some code."""

LARGE: dict[str, Callable[[], Any]] = {
    "60 deep": lambda: nested(60),
    "400 deep": lambda: nested(400),
    "5000 deep": lambda: nested(5000),
    "a mapping of what is deep": lambda: {"a": nested(60)},
    "5000 numbers": lambda: [0] * 5000,
    "2000 keys": lambda: {str(number): number for number in range(2000)},
    "a long text": lambda: "y" * 100_000,
    "a long number": lambda: int("f" * 4500, 16),
}

KEYS = [
    *(
        "__class__",
        "__init__",
        "__dict__",
        "__reduce__",
        "_target_",
        "py/object",
        "model_config",
        "model_fields",
        "name",
    ),
    *("", " ", "\0", "a.b", "..", "self", "<script>", "\ud800", "sha256", "arrays", "k" * 3000, "\n"),
]
"""Keys that code may take for something else."""

scalars = st.sampled_from(SCALARS) | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars | st.sampled_from(list(LARGE)[:-1]).map(lambda name: LARGE[name]()),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


# --- plain data ---


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if len(path) > 8:
        return found
    pairs = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else ()
    for key, inner in pairs:
        found += _places(inner, (*path, key))
    return found


def _copied(tree: Any, depth: int = 10) -> Any:
    """A copy, down to where nothing gets changed."""
    if not depth:
        return tree
    if isinstance(tree, dict):
        return {key: _copied(inner, depth - 1) for key, inner in tree.items()}
    return [_copied(inner, depth - 1) for inner in tree] if isinstance(tree, list) else tree


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


@st.composite
def damaged(draw: Draw, tree: Any, times: int = 3, value: st.SearchStrategy[Any] = values) -> Any:
    """Sound plain data with one to ``times`` changes: a value replaced, a key added, renamed or taken away."""
    tree = _copied(tree)
    for _ in range(draw(st.integers(1, times))):
        path = draw(st.sampled_from(_places(tree)))
        if not path:
            if isinstance(tree, dict):
                tree[draw(st.sampled_from(KEYS))] = draw(value)
            continue
        parent, key = _at(tree, path[:-1]), path[-1]
        kind = draw(st.sampled_from(["replace", "replace", "replace", "wrap", "delete", "rename", "add"]))
        if kind == "replace":
            parent[key] = draw(value)
        elif kind == "wrap":
            parent[key] = draw(st.sampled_from([[parent[key]], {"name": parent[key]}, shown(parent[key], 200)]))
        elif kind == "delete":
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw(st.sampled_from(KEYS))] = parent.pop(key) if kind == "rename" else draw(value)
    return tree


# --- bytes ---


@st.composite
def spoiled(draw: Draw, content: bytes) -> bytes:
    """Bytes that were cut off, with bits flipped, pieces repeated, lost or filled in."""
    damage = draw(st.sampled_from(["cut", "flip", "flip", "flip", "fill", "lose", "repeat", "append", "all"]))
    if damage == "all":
        return draw(st.sampled_from([b"", b"\0", b"\xff" * 64, b"\0" * 4096, b"{}", b"[", b"<html>", b"\x93NUMPY"]))
    size = max(1, len(content))
    # what a file says of itself stands mostly at one of its ends
    at = draw(st.integers(0, min(size, 200) - 1) | st.integers(max(0, size - 200), size - 1) | st.integers(0, size - 1))
    length = draw(st.integers(1, 64))
    if damage == "cut":
        return content[:at]
    if damage == "append":
        return content + draw(st.binary(min_size=1, max_size=40))
    if damage == "flip":
        changed = bytearray(content)
        for _ in range(draw(st.integers(1, 4))):
            changed[draw(st.integers(0, len(content) - 1)) if len(content) > 400 else at] ^= 1 << draw(
                st.integers(0, 7)
            )
        return bytes(changed)
    if damage == "fill":
        return content[:at] + draw(st.sampled_from([b"\0", b"\xff", b"\x7f", b"9"])) * length + content[at + length :]
    return content[:at] + (content[at : at + length] * 3 if damage == "repeat" else b"") + content[at + length :]


def pickles(marker: Path) -> list[bytes]:
    """Files that run code where they are unpickled, in the formats that people exchange."""
    import io
    import zipfile

    import numpy as np
    import torch

    plain = pickle.dumps(Payload(marker))
    legacy, zipped, array, archive, forged = (io.BytesIO() for _ in range(5))
    torch.save({"weights": Payload(marker)}, legacy, _use_new_zipfile_serialization=False)
    torch.save({"weights": Payload(marker)}, zipped)
    objects = np.array([Payload(marker)], dtype=object)
    np.save(array, objects, allow_pickle=True)
    np.savez(archive, correct=objects)
    with zipfile.ZipFile(forged, "w") as file:
        file.writestr("correct.npy", plain)
        file.writestr("../../escaped.npy", array.getvalue())
    return [plain, *(each.getvalue() for each in (legacy, zipped, array, archive, forged))]


# --- safetensors ---


def parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    size = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + size])
    return header, content[8 + size :]


def joined(header: Any, data: bytes) -> bytes:
    """A safetensors file with this header, whatever it says."""
    try:
        text = json.dumps(header).encode()
    except (TypeError, ValueError, RecursionError):
        text = b"{" * 2000
    return len(text).to_bytes(8, "little") + text + data


HEADERS = [
    b"",
    b"\0" * 8,
    b"\xff" * 8,
    (2**63).to_bytes(8, "little"),
    (100_000_000).to_bytes(8, "little") + b"{}",
    (2).to_bytes(8, "little") + b"{}",
    (4).to_bytes(8, "little") + b"null",
    (20_000).to_bytes(8, "little") + b"[" * 20_000,
    joined({"w": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}, b""),
    joined({"w": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}}, b""),
    joined({"w": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, b"\0"),
    joined({"../../w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"\0"),
    joined({"__metadata__": {"format": "pt"}}, b""),
]
"""Whole files whose headers lie."""


@st.composite
def forged(draw: Draw, content: bytes) -> bytes:
    """A safetensors file whose bytes were spoiled, or whose header says something else."""
    kind = draw(st.sampled_from(["bytes", "bytes", "header", "header", "header", "whole"]))
    if kind == "bytes":
        return draw(spoiled(content))
    if kind == "whole":
        return draw(st.sampled_from(HEADERS))
    header, data = parts(content)
    widths = {"F64": 8, "I64": 8, "U64": 8, "C64": 8, "F16": 2}
    kinds = st.sampled_from(["F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "U64", "F4", "", "O"])
    named = st.sampled_from(sorted(header))
    for _ in range(draw(st.integers(1, 2))):
        entry = header.get(draw(named))
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if isinstance(offsets, list) and [type(at) for at in offsets] == [int, int] and draw(st.booleans()):
            entry["dtype"] = draw(kinds)
            if draw(st.booleans()):  # and the shape with it, so that the file holds together
                entry["shape"] = [(offsets[1] - offsets[0]) // widths.get(entry["dtype"], 1)]
        else:
            header = draw(damaged(header))
            if not isinstance(header, dict) or not header:
                break
            named = st.sampled_from(sorted(header))
    return joined(header, data)


def sealed(tree: Any) -> bytes:
    """JSON with the checksum that isthmus would give it, so that what is inside gets read."""
    from isthmus.core import files

    try:
        plain = json.loads(json.dumps(tree))
        if isinstance(plain, dict):
            plain.pop(files.SEAL, None)
            plain[files.SEAL] = files.sha256(json.dumps(plain, sort_keys=True).encode())
        return json.dumps(plain).encode()
    except (TypeError, ValueError, RecursionError):
        return b'{"a": ' * 2000  # what JSON cannot hold
