"""A progress bar on stderr or in a notebook, which names what is running and estimates the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Update = Callable[[float, str], None]
"""Called with the fraction done, from 0 to 1, and what is running. A smaller fraction than before is ignored."""


def visible(console: Console) -> bool:
    """Whether a bar can be drawn: in a terminal or a notebook, but not in a file or pipe."""
    return console.is_terminal or console.is_jupyter


def columns() -> tuple[ProgressColumn, ...]:
    """What every bar shows: title, bar, percentage, time elapsed and time left."""
    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )


@contextmanager
def progress_bar(title: str, shown: bool = True) -> Iterator[Update]:
    """A bar that disappears at the end; nothing is drawn if ``shown`` is False or stderr is a file or pipe."""
    console = Console(stderr=True)
    bar = Progress(*columns(), console=console, disable=not (shown and visible(console)), transient=True)
    with bar:
        task, most = bar.add_task(title, total=1.0), 0.0

        def update(fraction: float, running: str) -> None:
            nonlocal most
            most = max(most, min(fraction, 1.0))
            bar.update(task, completed=most, description=f"{title}: {running}" if running else title)

        yield update
