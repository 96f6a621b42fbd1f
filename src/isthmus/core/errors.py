"""Errors that a user can correct: one clear sentence each, and exit code 2 on the command line."""

from __future__ import annotations

import difflib
import re
import reprlib
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = str(Path(__file__).parent.parent)
_DEPENDENCIES = (
    "torch numpy scipy sklearn pydantic yaml jaxtyping safetensors lightning_fabric typer click rich jinja2 matplotlib "
    "PIL datasets ray"
)
_NOT_THIRD_PARTY = {"", *sys.stdlib_module_names, *_DEPENDENCIES.split()}


class IsthmusError(Exception):
    """Base of the errors that isthmus raises on purpose: what was given, what was expected and what to do."""


class ConfigError(IsthmusError):
    """A recipe, an override or a name that cannot be used."""


class DataError(IsthmusError):
    """Images or labels that are missing, unreadable or out of range."""


class ModelError(IsthmusError):
    """A model whose output, weights or type does not fit the contract."""


class FileError(IsthmusError):
    """A file that cannot be read (corrupt, truncated, missing) or written (full disk, no permission)."""


def shown(given: object, most: int = 60) -> str:
    """A value as an error message quotes it: its ``repr`` on one line, shortened if it is long."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = most
    try:
        text = short.repr(given)
    except ValueError:  # Python does not convert integers of more than 4,300 digits
        text = f"<{type(given).__name__}>"
    text = " ".join(text.split())  # a module or an array has lines
    return text if len(text) <= most else f"{text[: most - 3]}..."


def one_line(error: BaseException) -> str:
    """The message of any exception on one line; its type if the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__


def brief(error: BaseException, most: int = 300) -> str:
    """The message of any exception on one line, shortened: it may quote a whole damaged file."""
    text = one_line(error)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def third_party_code(error: BaseException) -> str:
    """Module, file and line of third-party code that raised an error; empty if it was isthmus or a dependency.

    Only frames below the one that caught the error count.
    """
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        module, path = str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename
        if module.partition(".")[0] not in _NOT_THIRD_PARTY and not path.startswith(_PACKAGE):
            return f"{module} ({path}, line {line})"
    return ""


def printable(text: str) -> str:
    """Text on one line without control characters: file names can hold anything."""
    line = re.sub(r"\s*[\r\n]+\s*", " ", text.strip("\r\n"))
    line = line.replace("\u00a0", " ")  # a space that does not break, in text for the page
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


def unknown(what: str, given: object, known: Iterable[str]) -> str:
    """Message for an unknown name: the nearest known name as a suggestion, then all known names."""
    choices = sorted(known)
    written = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(given.lower(), written, n=1, cutoff=0.5) if isinstance(given, str) else []
    hint = f" Did you mean {written[close[0]]!r}?" if close else ""
    return f"There is no {what} {shown(given)}.{hint} There is: {', '.join(choices) or 'none'}."


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception reports a lack of memory: of Python, of torch on a GPU, or of its CPU allocator."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
