"""Reading and writing files so that nothing is lost: atomic writes, clear errors, no code run on loading."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.core.errors import FileError, brief

_TEMPORARY = ".part"
_LINE_BREAK = r"\s*\n\s*"  # none is inside a string of JSON
_LIST_OF_SCALARS = re.compile(rf'\[{_LINE_BREAK}((?:[^][{{}}"]|"(?:[^"\\]|\\.)*")*?){_LINE_BREAK}\]')
_DEEPEST = 100  # levels of JSON; the files of isthmus have a dozen


def check_regular(path: str | Path) -> None:
    """Refuse pipes and devices, which may have no end. Missing files and folders are left to the caller.

    Raises:
        FileError: the path is a pipe or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise FileError(f"{path} is a pipe or a device; give a regular file.")


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a whole file or leave the old one as it was: temporary file, fsync, rename.

    Raises:
        FileError: the disk is full or the folder cannot be written; an older file stays untouched.
    """
    path = Path(path)
    check_regular(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files; results get the usual permissions
        os.replace(temporary, path)
    except (OSError, RecursionError, ValueError) as error:  # the last two for an invalid or too deep path
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise FileError(
            f"Cannot write {path}: {_why(error)}. Whatever was written before is still there; "
            "free some space or choose another folder, and run the same command again."
        ) from None


def check_place(path: str | Path) -> None:
    """Refuse a path at which no file can be written, before the work whose result it is for.

    Raises:
        FileError: it is a folder, a pipe or a device, or a folder of it is a file.
    """
    path = Path(path)
    check_regular(path)
    if os.path.isdir(path):
        raise FileError(f"Cannot write {path}: it is a folder; name a file.")
    above = next((folder for folder in path.parents if os.path.lexists(folder)), None)
    if above is not None and not os.path.isdir(above):
        raise FileError(f"Cannot write {path}: {above} is no folder.")


def real(path: str | Path) -> Path:
    """The absolute path without symbolic links. A circle of links raises an error only when the path is opened."""
    return Path(os.path.realpath(path))


def exists(path: str | Path) -> bool:
    """Whether a path exists. An invalid path, for which ``Path.exists`` may raise, does not."""
    return os.path.exists(path)


def _why(error: Exception) -> str:
    """The error message of the operating system, if there is one."""
    return (isinstance(error, OSError) and error.strerror) or brief(error)


def remove_leftovers(folder: str | Path) -> None:
    """Delete temporary files of interrupted writes. Only for folders that no other process writes to."""
    for path in Path(folder).glob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


@contextmanager
def exclusive(folder: Path, doing: str, wait: bool = False) -> Iterator[None]:
    """Lock a folder, so that two processes never write the same results. The lock ends with the process.

    Args:
        doing: verb for the error message, such as "training".
        wait: wait until the lock is free instead of raising an error.

    Raises:
        FileError: another process holds it, or it cannot be written to.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except (OSError, RecursionError, ValueError) as error:  # the last two for an invalid or too deep path
        raise FileError(f"Cannot write to {folder}: {_why(error)}; choose another folder with --out.") from None
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            raise FileError(f"Another process is {doing} {folder} at this moment; wait for it or stop it.") from None
        yield


SEAL = "sha256"
"""Key of the last entry in a JSON object: a checksum of the other entries."""


def write_json(path: str | Path, content: Any, sealed: bool = True) -> None:
    """Write JSON atomically (see :func:`write_bytes`), each list of scalars on one line.

    NaN and infinities are refused: JSON has none.

    Args:
        sealed: add a checksum, with which :func:`read_json` detects changes.
    """
    text = json.dumps(content, indent=2, allow_nan=False)
    if sealed and isinstance(content, dict):
        plain = json.loads(text)
        text = json.dumps({**plain, SEAL: _seal(plain)}, indent=2)
    text = _LIST_OF_SCALARS.sub(lambda found: f"[{re.sub(_LINE_BREAK, ' ', found[1])}]", text)
    write_bytes(path, f"{text}\n".encode())


def _seal(plain: dict[str, Any]) -> str:
    """Checksum of an object after a round trip through JSON."""
    return sha256(json.dumps(plain, sort_keys=True).encode())


def parse_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is not JSON, or nested so deeply that recursion would overflow the stack.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested more than {_DEEPEST} deep") from None
    level = [content]
    for _ in range(_DEEPEST):
        inside = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = list(chain.from_iterable(inside))
        if not level:
            return content
    raise ValueError(f"it is nested more than {_DEEPEST} deep")


def read_json(path: str | Path) -> Any:
    """Read JSON and verify its checksum, if it has one; the checksum is removed.

    Raises:
        FileError: the file is missing, unreadable, truncated or not JSON, or not what was written.
    """
    check_regular(path)
    try:
        content = parse_json(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise FileError(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise FileError(
            f"{path} is not a readable JSON file ({brief(error)}); if isthmus wrote it, delete it to make it again."
        ) from None
    if isinstance(content, dict) and SEAL in content and content.pop(SEAL) != _seal(content):
        raise FileError(
            f"{path} does not match its own checksum: it is damaged, or was edited. Delete it to compute it again; "
            f"if the edit was intended, remove its last entry, {SEAL}."
        )
    return content


def read_json_lines(path: Path) -> list[Any]:
    """Content of each line of a JSON-lines file; empty if there is no file.

    An incomplete last line, which a killed process may leave, is skipped.

    Raises:
        FileError: the file cannot be read, or a line before the last is not JSON.
    """
    check_regular(path)
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path} cannot be read ({error}); restore it, or delete it to do without it.") from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found += [parse_json(line)] if line.strip() else []
        except ValueError:
            if number < len(lines):
                raise FileError(
                    f"{path} is not JSON on line {number}; mend or delete that line, or delete the file to do "
                    "without it."
                ) from None
    return found


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named numpy arrays as one compressed ``.npz``, atomically. Arrays of objects are refused."""
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"array {name!r} holds Python objects, which cannot be stored without pickle")
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy types the keywords as allow_pickle too
    write_bytes(path, buffer.getvalue())


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read an ``.npz`` written by :func:`write_arrays`; never unpickles.

    Raises:
        FileError: the file is missing, truncated or not an ``.npz`` of plain arrays.
    """
    check_regular(path)
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise FileError(f"There is no file {path}.") from None
    except Exception as error:  # for a damaged file, numpy and zipfile raise nearly anything
        raise FileError(
            f"{path} is not a readable array file ({brief(error)}); delete it to compute it again."
        ) from None


def sha256(*parts: bytes | memoryview | np.ndarray) -> str:
    """SHA-256 of the concatenation of byte strings or arrays, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else part)
    return digest.hexdigest()
