"""A progress bar on stderr or in a notebook, which names what is running and estimates the time left."""

from __future__ import annotations

import importlib
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from isthmus.core.errors import ConfigError, shown

T = TypeVar("T")
Update = Callable[[float, str], None]
"""Called with the fraction done, from 0 to 1, and what is running. A smaller fraction than before is ignored."""

_PAUSE, _WIDTH = 0.5, 100
"""Seconds between two updates in a notebook, and characters of its line."""

_reporting: ContextVar[bool] = ContextVar("reporting", default=False)


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


class Bar(Progress):
    """A bar that disappears at the end. Nothing is drawn if ``shown`` is False or stderr is a file or pipe.

    In a notebook it is a line of text; rich itself would need ipywidgets there.
    """

    def __init__(self, *columns: ProgressColumn, shown: bool = True) -> None:
        console = Console(stderr=True)
        self._line = _NotebookLine() if shown and console.is_jupyter else None
        drawn = shown and console.is_terminal and self._line is None
        super().__init__(*columns, console=console, disable=not drawn, transient=True)

    def update(self, task_id: TaskID, *args: Any, **changes: Any) -> None:
        """Change a task, and draw it."""
        super().update(task_id, *args, **changes)
        if self._line is not None:
            self._line.draw(self.get_renderable())

    def stop(self) -> None:
        """Remove the bar."""
        super().stop()
        if self._line is not None:
            self._line.clear()


class _NotebookLine:
    """A line of output in a notebook that is replaced, at most twice a second."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._next = 0.0

    def draw(self, content: RenderableType) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _PAUSE
            text = io.StringIO()
            Console(file=text, width=_WIDTH, color_system=None, force_jupyter=False).print(content)
            self._show(text.getvalue().rstrip())

    def clear(self) -> None:
        if self._handle is not None:
            self._show("")

    def _show(self, text: str) -> None:
        content = {"text/plain": text}
        if self._handle is None:
            display = importlib.import_module("IPython.display").display
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


@contextmanager
def progress_bar(title: str, shown: bool = True) -> Iterator[Update]:
    """A bar that disappears at the end; see :class:`Bar`."""
    with Bar(*columns(), shown=shown) as bar:
        task, most = bar.add_task(title, total=1.0), 0.0

        def update(fraction: float, running: str) -> None:
            nonlocal most
            most = max(most, min(fraction, 1.0))
            bar.update(task, completed=most, description=f"{title}: {running}" if running else title)

        yield update


@contextmanager
def reporting() -> Iterator[bool]:
    """Inside, calls draw no bar by default. Yields whether this is already inside such a block."""
    inside = _reporting.get()
    token = _reporting.set(True)
    try:
        yield inside
    finally:
        _reporting.reset(token)


@contextmanager
def shown_progress(progress: T | bool | None, title: str, drawn: Callable[[Update], T]) -> Iterator[T | None]:
    """The function to call with progress, or None.

    Args:
        progress: that function; True for one that draws a bar; False for None; None is True, but False inside another
            call that reports progress, such as in a check of an audit.
        drawn: makes the function that draws, from the bar's.

    Raises:
        ConfigError: something else.
    """
    with reporting() as inside:
        given = not inside if progress is None else progress
        checked: object = given
        if not callable(checked) and not isinstance(checked, bool):
            raise ConfigError(f"progress is True, False or a function; got {shown(checked)}.")
        if not isinstance(given, bool):
            yield given
        elif given:
            with progress_bar(title) as update:
                yield drawn(update)
        else:
            yield None
