"""Errors a user can mend: one clear sentence each, and exit code 2 on the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class IsthmusError(Exception):
    """Base of every error isthmus raises on purpose. The message says what was given, expected, and to do."""


class ConfigError(IsthmusError):
    """A recipe, an override or a name that cannot be used."""


class DataError(IsthmusError):
    """Images or labels that are missing, unreadable or out of range."""


class ModelError(IsthmusError):
    """A model whose output, weights or type does not fit the contract."""


class FileError(IsthmusError):
    """A file that cannot be read (corrupt, truncated, missing) or written (full disk, no permission)."""


def unknown(what: str, given: object, known: Iterable[str]) -> str:
    """Say that a name is unknown: the nearest known one as a suggestion, then what there is."""
    choices = sorted(known)
    close = difflib.get_close_matches(str(given), choices, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"There is no {what} {given!r}.{hint} There is: {', '.join(choices) or 'none'}."


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there is no memory left: Python's, torch's on a GPU, its allocator's on a CPU."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
