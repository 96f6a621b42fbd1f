"""A trial: hostile input is handed to a public entry, and what comes of it is judged and counted.

Whatever was given, the entry either works or raises an error of :mod:`isthmus.core.errors` that says so in a line. It
leaves no file behind where it refuses, and it runs nothing that came with the input.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings

from isthmus.cli import app
from isthmus.core.errors import IsthmusError

FULL = os.environ.get("HYPOTHESIS_PROFILE") == "fresh"
"""Whether all cases are tried, newly drawn, rather than a few that are always the same."""

OUTCOMES = ("worked", "refused", "traceback", "hang", "partial state", "code run")
PATIENCE = 600  # seconds after which a case hangs; the slowest takes a few, on a busy machine a minute
LONGEST = 2000  # characters of a message that can be read

counts: Counter[tuple[str, str]] = Counter()
"""Cases of each kind by what came of them."""


def cases(short: int, full: int) -> settings:
    """How many cases a test tries, in an ordinary run of the tests and in a full one."""
    return settings(
        max_examples=full if FULL else short,
        phases=(Phase.explicit, Phase.generate),  # a case is shown as it was drawn: making it smaller takes long
        database=None,
        suppress_health_check=list(HealthCheck),
    )


# --- what must not happen ---


class Hang(BaseException):
    """A case took longer than anybody waits; no handler of errors may swallow it."""


@contextlib.contextmanager
def patience() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang(f"no answer within {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class _Watch:
    """Notes what Python's audit events say of code that runs: an unpickled name, a shell, another program."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "marshal.loads"):
            if event == "marshal.loads" and sys._getframe(1).f_code.co_filename.startswith("<frozen importlib"):
                return  # a module of ours, compiled before
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "subprocess.Popen" and Path(str(arguments[0])).name != "git":  # asked for the commit
            self.seen.append(f"{event} {arguments!r:.200}")


_watch = _Watch()
sys.addaudithook(_watch)


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """What ran inside, as far as Python says."""
    _watch.on, _watch.seen = True, []
    try:
        yield _watch.seen
    finally:
        _watch.on = False


class Payload:
    """Something that creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


# --- a place for each case ---


@dataclass(frozen=True)
class Place:
    """A folder of its own for a case, and a file that is there only if code of the input ran."""

    folder: Path
    marker: Path

    def write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def state(self) -> dict[str, object]:
        """Every file and folder in it."""
        found: dict[str, object] = {}
        for root, folders, files in os.walk(self.folder):
            for name in (*folders, *files):
                path = os.path.join(root, name)
                about = os.lstat(path)
                found[path] = (about.st_mode, about.st_size, about.st_mtime_ns) if name in files else about.st_mode
        return found


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """A fresh folder, which is also the working directory meanwhile."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        root = Path(name).resolve()
        (root / "given").mkdir()
        os.chdir(root / "given")
        try:
            yield Place(root / "given", root / "code-ran")
        finally:
            os.chdir(here)
            for path in root.rglob("*"):  # what was made unreadable must be deleted, too
                if not path.is_symlink() and path.is_dir():
                    path.chmod(0o700)


# --- judging ---


def judge(kind: str, given: Place, act: Callable[[], object], apart: Sequence[str] = ()) -> str:
    """Do something and judge what came of it; returns the outcome, which is counted under ``kind``.

    Args:
        apart: names of files that may change even where it refuses: a lock, a note that something was begun.

    Raises:
        AssertionError: the error was no sentence, or files were left behind, or code ran.
        Exception: whatever was raised that is no error of isthmus.
    """
    before = given.state()
    outcome = "traceback"
    try:
        with patience(), watched() as ran:
            outcome = _outcome(act)
        if ran or given.marker.exists():
            outcome = "code run"
            raise AssertionError(f"code ran: {ran or given.marker}")
        if outcome == "refused" and (left := _difference(before, given.state(), apart)):
            outcome = "partial state"
            raise AssertionError(f"left behind: {left}")
    except Hang:
        outcome = "hang"
        raise
    finally:
        counts[kind, outcome] += 1
    return outcome


def _outcome(act: Callable[[], object]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as for a user, whom a warning does not stop
        warnings.filterwarnings("ignore", module=r"PIL\.|torch\.|matplotlib\.|isthmus\.")
        warnings.filterwarnings("ignore", category=ResourceWarning)  # numpy's, of a file that it could not map
        try:
            act()
        except IsthmusError as error:
            assert_sentence(str(error))
            return "refused"
    return "worked"


def assert_sentence(message: str) -> None:
    """A message that a person can read: not empty, no dump of the input."""
    assert message.strip(), "the error says nothing"
    assert len(message) <= LONGEST, f"the error has {len(message)} characters: {message[:300]}"
    assert "Traceback" not in message


def _difference(before: dict[str, object], after: dict[str, object], apart: Sequence[str]) -> list[str]:
    changed = (path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return sorted(path for path in changed if Path(path).name not in apart)


# --- the command line, in this process ---


class Refused(IsthmusError):
    """The command ended with exit code 2."""


@dataclass(frozen=True)
class Said:
    """What a command printed."""

    code: int
    out: str
    err: str


def command(*arguments: str) -> Said:
    """Run ``isthmus`` as its entry point does, with the streams of a UTF-8 terminal.

    Raises:
        Refused: it ended with exit code 2; with what it said.
        AssertionError: it ended with exit code 1, a fault of ours, or showed a traceback.
    """
    out, err = _stream("strict"), _stream("backslashreplace")
    levels = {name: logging.getLogger(name).level for name in ("isthmus", None)}
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app.main(list(arguments))
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
    assert isinstance(code, int)
    said = Said(code, _text(out), _text(err))
    for text in (said.out, said.err):
        assert "Traceback" not in text, text
        assert "Error inside isthmus" not in text, text
    assert code in (0, 2, 3, 4), said
    if code == 2:
        raise Refused(_without(arguments, said.err or said.out))
    return said


def _without(arguments: Sequence[str], text: str) -> str:
    """What was said, apart from long arguments that it quotes: a parser and an error about a path quote them whole."""
    for argument in sorted(arguments, key=len, reverse=True):
        if len(argument) > 100:
            text = text.replace(argument, "…").replace(argument.rstrip("/"), "…")
    return text


def _stream(errors: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors, write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    raw = stream.buffer
    assert isinstance(raw, io.BytesIO)
    return raw.getvalue().decode("utf-8", "backslashreplace")


def write_counts(path: Path) -> None:
    """For ``benchmarks.fuzzing``: cases of each kind by outcome, as JSON."""
    kinds = sorted({kind for kind, _ in counts})
    table = [{"kind": kind} | {outcome: counts[kind, outcome] for outcome in OUTCOMES} for kind in kinds]
    path.write_text(json.dumps(table), encoding="utf-8")
