"""The comparison table of the page, for a terminal, and what a reader of its numbers must know besides."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from isthmus.core.errors import printable
from isthmus.core.types import Metric, Status
from isthmus.report import numbers, page, scorecard, tables
from isthmus.report.subjects import Subject

_LONGEST = 300
"""Characters of a reason that are shown; the page has the whole."""

_STYLES = {Status.WARN: "yellow", Status.FAIL: "red", Status.SKIPPED: "dim", Status.ERROR: "bold red"}


def comparison(subjects: Sequence[Subject]) -> Table:
    """A column for each audited classifier, a row for each number its checks put up for comparison."""
    columns = [column for section in page.sections(subjects).values() for column in section.columns.items()]
    sizes = {metric.n for _, metrics in columns for metric in metrics.values() if metric.value is not None}
    shared = numbers.size(sizes.pop()) if len(sizes) == 1 else ""
    below = "95% intervals below each value"
    table = Table(caption=f"{shared}; {below}" if shared else below, caption_justify="left")
    table.add_column(_text(", ".join(dict.fromkeys(subject.record.data for subject in subjects))))
    for subject in subjects:
        table.add_column(_text(subject.name), justify="right", overflow="fold")
    for title, metrics in columns:
        row = tables.column(title, [metrics.get(subject.name) for subject in subjects])
        known = (subject.name in metrics for subject in subjects)
        small = "".join(f"\n{part}" for part in row.small if part != shared)
        cells = (_cell(cell) if there else Text("–", "dim") for there, cell in zip(known, row.cells, strict=True))
        table.add_row(Text.assemble(printable(title), (small, "dim")), *cells)
    return table


def verdicts(subjects: Sequence[Subject]) -> Iterator[str]:
    """The verdict on each classifier in a line: its status, and the robust accuracy to cite with n and interval."""
    for subject in subjects:
        result = subject.results.get("diagnosis")
        if result is None or "verdict" not in result.details:
            continue
        verdict, modes = result.details["verdict"], result.details["modes"]
        left, reported = (Metric.model_validate(verdict[f"{name}_metric"]) for name in ("corrected", "reported"))
        mode = f", {result.details['mode']} mode" if len(modes) > 1 else ""
        line = (
            f"verdict{f' on {subject.name}' if len(subjects) > 1 else ''}: {verdict['status']}; robust accuracy at "
            f"{result.details['threat']}{mode}: {numbers.in_words(left)}; reported: {numbers.in_words(reported)}"
        )
        yield line.replace("\u00a0", " ")


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


def _text(given: str) -> Text:
    """A name or a sentence out of a file, as plain text."""
    return Text(printable(given))


def _cell(cell: tables.Cell) -> Text:
    why = printable(cell.note) if cell.numeric and not cell.interval else ""
    return Text.assemble(cell.text, ("".join(f"\n{part}" for part in (cell.interval, cell.n, why) if part), "dim"))
