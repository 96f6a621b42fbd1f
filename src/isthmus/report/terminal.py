"""The comparison table of the page, verdicts and warnings, for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from isthmus.core.errors import printable
from isthmus.core.format import STATUSES, in_words, size
from isthmus.core.types import Metric, Status
from isthmus.report import page, scorecard, tables
from isthmus.report.loading import AuditedModel

_LONGEST = 300
"""Most characters of a reason; the page has the whole."""

_STYLES = {Status.WARN: "yellow", Status.FAIL: "red", Status.SKIPPED: "dim", Status.ERROR: "bold red"}


def comparison(models: Sequence[AuditedModel]) -> Table:
    """A column for each audited classifier, a row for each number that its sections compare."""
    columns = [column for section in page.sections(models).values() for column in section.columns.items()]
    sizes = {metric.n for _, metrics in columns for metric in metrics.values() if metric.value is not None}
    shared = size(sizes.pop()) if len(sizes) == 1 else ""
    below = "95% intervals below each value"
    table = Table(caption=f"{shared}; {below}" if shared else below, caption_justify="left")
    table.add_column(_text(", ".join(dict.fromkeys(model.record.data for model in models))))
    for model in models:
        table.add_column(_text(model.name), justify="right", overflow="fold")
    for title, metrics in columns:
        row = tables.column(title, [metrics.get(model.name) for model in models])
        known = (model.name in metrics for model in models)
        small = "".join(f"\n{part}" for part in row.small if part != shared)
        cells = (_cell(cell) if there else Text("–", "dim") for there, cell in zip(known, row.cells, strict=True))
        table.add_row(Text.assemble(printable(title), (small, "dim")), *cells)
    return table


def verdicts(models: Sequence[AuditedModel]) -> Iterator[str]:
    """The verdict on each classifier in a line: its status, and the robust accuracy to cite with n and interval."""
    for model in models:
        result = model.results.get("diagnosis")
        if result is None or "verdict" not in result.details:
            continue
        verdict, modes = result.details["verdict"], result.details["modes"]
        left, reported = (Metric.model_validate(verdict[f"{name}_metric"]) for name in ("corrected", "reported"))
        mode = f", {result.details['mode']} mode" if len(modes) > 1 else ""
        line = (
            f"verdict{f' on {model.name}' if len(models) > 1 else ''}: {verdict['status']}; robust accuracy at "
            f"{result.details['threat']}{mode}: {in_words(left)}; reported: {in_words(reported)}"
        )
        yield line.replace("\u00a0", " ")


def remarks(models: Sequence[AuditedModel]) -> Table:
    """A line for every classifier that collapsed, and for every check that did not pass or measure, with the reason."""
    lines = Table.grid(padding=(0, 2))
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold", ratio=1)
    lines.add_column(overflow="fold", ratio=4)
    for word, style, about, reason in _remarks(models):
        short = textwrap.shorten(reason, _LONGEST, placeholder=" …")
        lines.add_row(Text(word, style), _text(about), _text(short))
    return lines


def _remarks(models: Sequence[AuditedModel]) -> Iterator[tuple[str, str, str, str]]:
    for model in models:
        if model.collapsed:
            yield "collapsed", "bold red", model.name, model.collapse
    for check in scorecard.in_order({check for model in models for check in model.results}):
        for model in models:
            result = model.results.get(check)
            if result is not None and result.status not in (Status.PASS, Status.MEASURED):
                style = _STYLES[result.status]
                yield STATUSES[result.status], style, f"{check} of {model.name}", result.reason


def _text(given: str) -> Text:
    """A name or a sentence out of a file, as plain text."""
    return Text(printable(given))


def _cell(cell: tables.Cell) -> Text:
    why = printable(cell.note) if cell.numeric and not cell.interval else ""
    return Text.assemble(cell.text, ("".join(f"\n{part}" for part in (cell.interval, cell.n, why) if part), "dim"))
