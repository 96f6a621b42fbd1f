"""Reading pickles of plain data and byte arrays, such as CIFAR's archives, without running code.

Python's unpickler calls what a pickle names. Here it may name only numpy's ways of making an array, and for these it
gets stand-ins, so that nothing outside this module is ever called.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isthmus.core.errors import DataError, brief
from isthmus.core.files import check_regular


class _Type:
    """Stand-in for ``numpy.dtype``."""

    def __init__(self, name: object = None, *_options: object) -> None:
        self.name = name.decode("ascii") if isinstance(name, bytes) else name

    def __setstate__(self, _state: object) -> None:
        """Byte order and the like, which one byte does not have."""


class _Array:
    """Stand-in for an array that is being made; its state has shape, type, order and bytes."""

    def __init__(self, *_given: object) -> None:
        self.value: NDArray[np.uint8] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        self.value = _bytes(content, kind, shape, "F" if fortran else "C")


def _bytes(content: object, kind: object, shape: tuple[int, ...], order: Literal["C", "F"]) -> NDArray[np.uint8]:
    if not isinstance(kind, _Type) or kind.name not in ("u1", "uint8") or not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError("an array of other numbers than bytes")
    return np.frombuffer(bytes(content), np.uint8).reshape(shape, order=order)


def _from_buffer(content: object, kind: object, shape: tuple[int, ...], order: Literal["C", "F"]) -> _Array:
    """Stand-in for how numpy writes an array since protocol 5."""
    found = _Array()
    found.value = _bytes(content, kind, shape, order)
    return found


def _encoded(text: str, encoding: str) -> bytes:
    """Stand-in for how Python 3 writes bytes up to protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding!r}")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encoded,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and would run code")
        stand_in = _KNOWN[module, name]
        return lambda *given: stand_in(*given)  # a new function, since a pickle may set attributes of what it gets


def read_pickle(file: Path, about: str) -> dict[str, Any]:
    """A dictionary of plain values and byte arrays; keys are text.

    Strings of a pickle that Python 2 wrote are bytes, except keys.

    Args:
        about: how to get the file, as a sentence for messages.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    check_regular(file)
    try:
        with file.open("rb") as opened:
            content = _Reader(opened, encoding="bytes").load()
    except FileNotFoundError:
        raise DataError(f"There is no {file}. {about}") from None
    except Exception as error:  # a damaged pickle may fail in any way
        raise DataError(f"{file} is not a pickle of plain data ({brief(error).rstrip('.')}). {about}") from None
    if not isinstance(content, dict):
        raise DataError(f"{file} holds {type(content).__name__}; expected a dictionary. {about}")
    return {_text(key): _plain(value) for key, value in content.items()}


def _text(key: object) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)


def _plain(value: object) -> object:
    return value.value if isinstance(value, _Array) else value
