"""The progress display of a study: all its experiments, and what each worker does."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_WIDE = 72
"""Characters of a worker's line before its bar."""


class Display:
    """Bars on stderr; nothing is drawn if that is no terminal or ``shown`` is False. A context manager.

    Args:
        title: of the bar over all experiments.
    """

    def __init__(self, title: str, shown: bool = True) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[count]}"))
        self._progress = Progress(
            *columns, TimeElapsedColumn(), console=console, disable=not (shown and console.is_terminal), transient=True
        )
        self._all = self._progress.add_task(title, total=None, count="")
        self._workers: dict[int, TaskID] = {}
        self._title, self._stage, self._before, self._total = title, 1, 0, 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def count(self, done: int, total: int, failed: int) -> None:
        """Show how many experiments are done and how many failed; a larger total begins another stage."""
        if 0 < self._total < total:
            self._stage, self._before = self._stage + 1, self._total
        self._total = total
        note = f"{done}/{total}" + (f", {failed} failed" if failed else "")
        title = self._title if self._stage == 1 else f"{self._title}, stage {self._stage}"
        over = done + failed - self._before
        self._progress.update(self._all, description=title, completed=over, total=total - self._before, count=note)

    def failed(self, name: str, why: str) -> None:
        """Print above the bars that an experiment failed."""
        self._progress.console.print(f"failed: {name}: {why}", highlight=False, markup=False)

    def at(self, worker: int, experiment: str, what: str, done: float, total: float) -> None:
        """Show what a worker does, and its progress."""
        text = f"  {experiment}: {what}"
        text = text if len(text) <= _WIDE else f"{text[: _WIDE - 1]}…"
        share = f"{done / total:.0%}" if total else ""
        if worker not in self._workers:
            self._workers[worker] = self._progress.add_task(text, total=total or None, count=share)
        task = self._workers[worker]
        self._progress.update(task, description=text, completed=done, total=total or None, count=share)

    def idle(self, worker: int) -> None:
        """Remove the bar of a worker without a task."""
        task = self._workers.pop(worker, None)
        if task is not None:
            self._progress.remove_task(task)
