"""Progress of a run: a bar on stderr, or calls of a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from isthmus.core.progress import Bar, reporting

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


def format_terms(means: dict[str, float]) -> str:
    """The terms of a window as a line: "ce 0.412 R 2.310 acc 0.870"."""
    return " ".join(f"{label} {means[name]:.3f}" for name, label in SHOWN.items() if name in means)


class _StepsPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} steps/s" if task.speed else "", style="progress.data.speed")


@contextmanager
def show_progress(name: str, total: int, done: int, shown: bool | ProgressCallback) -> Iterator[ProgressCallback]:
    """The function to call at every step.

    Args:
        name: of the run.
        total, done: steps of the run, and those before this start.
        shown: that function; or whether to draw a bar with rate, time left and terms, in a terminal or notebook.
    """
    if not isinstance(shown, bool):
        with reporting():
            yield shown
        return
    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        _StepsPerSecond(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[terms]}", style="dim"),
        shown=shown,
    )
    with reporting(), bar:
        task = bar.add_task(name, total=total, completed=done, terms="")
        yield lambda done, total, terms: bar.update(task, completed=done, terms=terms)
