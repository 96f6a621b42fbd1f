"""The comparison table of the page, for a terminal, and what a reader of its numbers must know besides."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from isthmus.errors import printable
from isthmus.report import numbers, page, scorecard
from isthmus.report.subjects import Subject
from isthmus.types import Metric, Status

_LONGEST = 300
"""Characters of a reason that are shown; the page has the whole."""

_STYLES = {Status.WARN: "yellow", Status.FAIL: "red", Status.SKIPPED: "dim", Status.ERROR: "bold red"}


def comparison(subjects: Sequence[Subject]) -> Table:
    """A column for each audited classifier, a row for each number its checks put up for comparison."""
    table = Table(caption=_caption(subjects), caption_justify="left")
    table.add_column(_text(", ".join(dict.fromkeys(subject.record.data for subject in subjects))))
    for subject in subjects:
        table.add_column(_text(subject.name), justify="right", overflow="fold")
    for section in page.sections(subjects).values():
        for title, metrics in section.columns.items():
            table.add_row(_text(title), *(_cell(metrics.get(subject.name)) for subject in subjects))
    return table


def remarks(subjects: Sequence[Subject]) -> Table:
    """A line for every classifier that collapsed, and for every check that did anything but pass: how, and why."""
    lines = Table.grid(padding=(0, 2))
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold", ratio=1)
    lines.add_column(overflow="fold", ratio=4)
    for word, style, about, reason in _remarks(subjects):
        short = textwrap.shorten(reason, _LONGEST, placeholder=" …")
        lines.add_row(Text(word, style), _text(about), _text(short))
    return lines


def _remarks(subjects: Sequence[Subject]) -> Iterator[tuple[str, str, str, str]]:
    for subject in subjects:
        if subject.collapsed:
            yield "collapsed", "bold red", subject.name, subject.collapse
    for check in scorecard.in_order({check for subject in subjects for check in subject.results}):
        for subject in subjects:
            result = subject.results.get(check)
            if result is not None and result.status is not Status.PASS:
                style = _STYLES[result.status]
                yield scorecard.WORDS[result.status], style, f"{check} of {subject.name}", result.reason


def _caption(subjects: Sequence[Subject]) -> str:
    sizes = sorted({subject.record.n for subject in subjects})
    n = numbers.size(sizes[0]) if len(sizes) == 1 else f"{numbers.size(sizes[0])} to {sizes[-1]:,}"
    return f"{n}; 95% intervals below each value"


def _text(given: str) -> Text:
    """A name or a sentence out of a file, as plain text."""
    return Text(printable(given))


def _cell(metric: Metric | None) -> Text:
    if metric is None:
        return Text("–", "dim")
    interval = numbers.interval_text(metric)
    return Text.assemble(numbers.value_text(metric, unit=False), (f"\n{interval}" if interval else "", "dim"))
