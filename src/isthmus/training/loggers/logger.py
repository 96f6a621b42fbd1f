"""Base classes of loggers.

A logger gets the rows of ``metrics.jsonl``, which stays the source: a resumed run gives every logger the rows that the
file keeps, and then the new ones. A tracker thus gets what it missed, and leaves out what it has.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.core.config import Component, instance
from isthmus.core.errors import ConfigError, IsthmusError, one_line
from isthmus.core.trackers import log_numbers

log = logging.getLogger(__name__)

Row = Mapping[str, float | None]
"""Numbers of one line of ``metrics.jsonl`` by name, with ``step`` and ``epoch``; None is "not finite"."""


@dataclass(frozen=True)
class LoggedRun:
    """What a logger knows of a run.

    Attributes:
        folder: the run folder.
        id: 16 hexadecimal digits, made with the run folder and kept in its ``run.json``; the same when a run resumes.
        name: of the recipe.
        recipe: with all defaults, as plain data.
        step: steps before this start; 0 for a new run.
    """

    folder: Path
    id: str
    name: str
    recipe: Mapping[str, Any]
    step: int = 0


class LoggerState:
    """A logger in one run. Every method does nothing by default; a logger overrides those that it needs."""

    def write(self, row: Row) -> None:
        """Called with each line of ``metrics.jsonl``: first those that a resumed run keeps, then every new one."""

    def checkpoint(self) -> None:
        """Called when the run has resumed, and before each checkpoint: the rows so far will be kept."""

    def close(self, finished: bool) -> None:
        """Called at the end of this start of the run, which may not be the end of the run."""


class Logger(Component, ABC):
    """Options of a logger, and how to start it. Only the first of several processes logs."""

    def require(self) -> None:
        """Check, before anything is written, that an optional package is installed.

        Raises:
            ConfigError: it is not.
        """

    @abstractmethod
    def start(self, run: LoggedRun) -> LoggerState:
        """Start or resume the logger of a run."""


class TrackerState(LoggerState):
    """A logger that sends numbers to an experiment tracker.

    Args:
        target: what :func:`isthmus.core.trackers.log_numbers` accepts.
        has: whether the tracker already has the row of a step, asked once for each row; it is then left out.
        close: called at the end with whether the run finished.
    """

    def __init__(self, target: Any, has: Callable[[int], bool], close: Callable[[bool], object]) -> None:
        self.target, self._has, self._close = target, has, close

    def write(self, row: Row) -> None:
        """Send the finite numbers of a row."""
        step = int(row["step"] or 0)
        if not self._has(step):
            numbers = {name: value for name, value in row.items() if value is not None and name != "step"}
            log_numbers(self.target, numbers, step)

    def close(self, finished: bool) -> None:
        """End this start of the run."""
        self._close(finished)


class LoggerList:
    """The loggers of a recipe. One that fails while a run trains is left out from there on, with a warning."""

    def __init__(self, loggers: Sequence[Component]) -> None:
        self._loggers = [instance("loggers", each, Logger) for each in loggers]
        self._states: dict[str, LoggerState] = {}
        for logger in self._loggers:
            logger.require()

    def start(self, run: LoggedRun, lines: Sequence[Mapping[str, Any]]) -> None:
        """Start all loggers, and give them the lines that ``metrics.jsonl`` holds already.

        Raises:
            ConfigError: a logger cannot start.
        """
        for logger in self._loggers:
            try:
                self._states[logger.name] = logger.start(run)
            except IsthmusError:
                raise
            except Exception as error:  # a tracker may fail with anything, such as a server that does not answer
                raise ConfigError(
                    f"The logger {logger.name!r} cannot start ({type(error).__name__}: {one_line(error)}). Correct "
                    "this, or train without it in another folder."
                ) from error
        for line in lines:
            self.write(line)
        self.checkpoint()

    def write(self, line: Mapping[str, Any]) -> None:
        """Give a line of ``metrics.jsonl`` to all loggers."""
        row = numbers_of(line)
        self._each(lambda state: state.write(row))

    def checkpoint(self) -> None:
        """Tell all loggers that the rows so far will be kept."""
        self._each(lambda state: state.checkpoint())

    def close(self, finished: bool) -> None:
        """End all loggers."""
        self._each(lambda state: state.close(finished))
        self._states = {}

    def _each(self, call: Callable[[LoggerState], None]) -> None:
        for name, state in list(self._states.items()):
            try:
                call(state)
            except IsthmusError:
                raise
            except Exception as error:
                del self._states[name]
                log.warning(
                    "The logger %r failed (%s: %s) and gets no more rows of this run; metrics.jsonl has all of them, "
                    "and a resumed run sends those that are missing.",
                    name,
                    type(error).__name__,
                    one_line(error),
                )


def numbers_of(line: Mapping[str, Any], prefix: str = "") -> dict[str, float | None]:
    """The numbers of a line of ``metrics.jsonl``; names in nested mappings are joined by dots, lists are left out."""
    found: dict[str, float | None] = {}
    for name, value in line.items():
        if isinstance(value, Mapping):
            found |= numbers_of(value, f"{prefix}{name}.")
        elif value is None or isinstance(value, int | float):
            found[f"{prefix}{name}"] = int(value) if isinstance(value, bool) else value
    return found
