"""``isthmus compare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from isthmus.cli.exit_codes import ERROR, REGRESSION
from isthmus.cli.options import OUTPUT, argument, flag, text
from isthmus.cli.output import echo, echo_wrapped
from isthmus.core import files
from isthmus.core.errors import printable

if TYPE_CHECKING:
    from isthmus.report.changes import AuditComparison


def compare(
    before: Annotated[Path, argument("Audited run folder to compare with.", "BEFORE")],
    after: Annotated[Path, argument("Audited run folder of the changed model.", "AFTER")],
    markdown: Annotated[Path | None, text("Also write a summary in Markdown.", "FILE", show_default=False)] = None,
    as_json: Annotated[
        bool, flag("Print one JSON document on stdout and nothing else.", "--json", panel=OUTPUT)
    ] = False,
) -> None:
    """Compare two audits on the same images by paired intervals, from their stored results.

    Exit codes:

    * 2: the audits are on different images, or the second one has no result of a number that the first one has
    * 7: a number is worse beyond the interval of the difference; all intervals hold jointly at 95%
    """
    from isthmus.report import changes
    from isthmus.report.exports.markdown import comparison
    from isthmus.report.loading import load

    if markdown is not None:
        files.check_place(markdown)
    found = changes.compare(load(before), load(after))
    if markdown is not None:
        files.write_bytes(markdown, comparison(found))
    if as_json:
        typer.echo(json.dumps(found.document(), allow_nan=False, indent=1))
    else:
        _show(found)
    if found.regressions:
        raise typer.Exit(REGRESSION)
    if found.missing:
        echo(f"Error: not everything is compared. {' '.join(found.missing)}", err=True)
        raise typer.Exit(ERROR)


def _show(found: AuditComparison) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
    for title in ("", found.before, found.after, "difference (95%)", ""):
        table.add_column(Text(printable(title)), overflow="fold")
    for row in found.table(short=True):
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(highlight=False).print(table)
    echo("")
    for line in (found.sentence, *found.missing, *found.notes):
        echo_wrapped(line)
