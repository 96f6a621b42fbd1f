"""Errors a user can mend: one clear sentence each, and exit code 2 on the command line."""

from __future__ import annotations

import difflib
import re
import reprlib
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

_OURS = str(Path(__file__).parent.parent)
_DEPENDENCIES = (
    "torch numpy scipy sklearn pydantic yaml jaxtyping safetensors lightning_fabric typer click rich jinja2 matplotlib "
    "PIL datasets ray"
)
_NOT_THEIRS = {"", *sys.stdlib_module_names, *_DEPENDENCIES.split()}


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


def shown(given: object, most: int = 60) -> str:
    """What was given, as a message quotes it: its ``repr``, or the beginning of a long one."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = most
    try:
        text = short.repr(given)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        text = f"<{type(given).__name__}>"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def one_line(error: BaseException) -> str:
    """What somebody else's exception says, as part of a sentence; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def brief(error: BaseException, most: int = 300) -> str:
    """The same, and not the whole of a damaged file."""
    text = one_line(error)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def foreign_code(error: BaseException) -> str:
    """Where code that is neither ours nor a dependency's raised an error, as module, file and line; empty if nowhere.

    Only frames below the one that caught the error count.
    """
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        module, path = str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename
        if module.partition(".")[0] not in _NOT_THEIRS and not path.startswith(_OURS):
            return f"{module} ({path}, line {line})"
    return ""


def printable(text: str) -> str:
    """A text on one line, and with nothing in it that a terminal would obey: names of files can hold anything."""
    line = re.sub(r"\s*[\r\n]+\s*", " ", text.strip("\r\n"))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


def unknown(what: str, given: object, known: Iterable[str]) -> str:
    """Say that a name is unknown: the nearest known one as a suggestion, then what there is."""
    choices = sorted(known)
    close = difflib.get_close_matches(given, choices, n=1, cutoff=0.5) if isinstance(given, str) else []
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"There is no {what} {shown(given)}.{hint} There is: {', '.join(choices) or 'none'}."


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there is no memory left: Python's, torch's on a GPU, its allocator's on a CPU."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
