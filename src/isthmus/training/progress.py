"""Progress of a run: a bar on stderr, or calls of a function."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SHOWN = {
    "ce": "ce",
    "rate": "R",
    "residual": "ReX",
    "rate_lower": "I(X;Z)≥",
    "i_yz_lower": "I(Y;Z)≥",
    "accuracy": "acc",
}

ProgressCallback = Callable[[float, float, str], None]
"""Called at every step with (steps done, total steps, the terms of the last window)."""


class ProgressDisplay(Protocol):
    """Display of the progress of a run."""

    def advance(self) -> None:
        """Count one step."""

    def show(self, means: dict[str, float]) -> None:
        """Show the terms of the last window."""


class ForwardedProgress:
    """Progress forwarded to a function, such as that of a study that trains several models at once."""

    def __init__(self, callback: ProgressCallback, total: int, done: int) -> None:
        self._callback, self._total, self._done, self._terms = callback, total, done, ""

    def advance(self) -> None:
        """Count one step."""
        self._done += 1
        self._callback(self._done, self._total, self._terms)

    def show(self, means: dict[str, float]) -> None:
        """Report the terms of the last window from the next step on."""
        self._terms = format_terms(means)


def format_terms(means: dict[str, float]) -> str:
    """The terms of a window as a line: "ce 0.412 R 2.310 acc 0.870"."""
    return " ".join(f"{label} {means[name]:.3f}" for name, label in SHOWN.items() if name in means)


class ProgressBar:
    """One progress bar on stderr: steps, rate, time left, and the information terms."""

    def __init__(self, progress: Progress, name: str, total: int, done: int) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=total, completed=done, terms="")

    def advance(self) -> None:
        """Count one step."""
        self._progress.advance(self._task)

    def show(self, means: dict[str, float]) -> None:
        """Show the terms of the last window."""
        self._progress.update(self._task, terms=format_terms(means))


class _Rate(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Any) -> Any:
        from rich.text import Text

        return Text(f"{task.speed:.0f} steps/s" if task.speed else "", style="progress.data.speed")


@contextlib.contextmanager
def show_progress(name: str, total: int, done: int, shown: bool | ProgressCallback) -> Iterator[ProgressDisplay]:
    """Show the progress of one run: by a function, or by a bar if ``shown`` is True and stderr is a terminal."""
    if not isinstance(shown, bool):
        yield ForwardedProgress(shown, total, done)
        return
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[terms]}", style="dim"),
        console=console,
        disable=not shown or not console.is_terminal,
        transient=True,
    )
    with progress:
        yield ProgressBar(progress, name, total, done)
