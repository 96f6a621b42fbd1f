"""What commands print."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from isthmus.core.errors import printable

if TYPE_CHECKING:
    from isthmus.report.loading import AuditedModel


def echo(text: str, err: bool = False) -> None:
    """Print a line."""
    typer.echo(printable(text), err=err)


def echo_wrapped(text: str, indent: str = "  ") -> None:
    """Print text in lines as wide as the terminal (80 columns without one), broken only between words."""
    width = shutil.get_terminal_size().columns
    for line in textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False):
        echo(line)


def show(models: Sequence[AuditedModel], page: Path, everything: bool, as_json: bool) -> None:
    """Print audits: verdict, numbers, comparison, warnings and the page's path; or one JSON document.

    Args:
        everything: before these, all numbers of the page, all warnings in full and the verdicts with their intervals.
        as_json: print the document alone, with infinities and NaN as text.
    """
    from isthmus.report import terminal
    from isthmus.report.document import document

    if as_json:
        typer.echo(json.dumps(document(models, page), allow_nan=False, indent=1))
        return
    console = Console(highlight=False)
    if everything:
        console.print(terminal.comparison(models))
        if (remarks := terminal.remarks(models)).row_count:
            console.print(remarks)
        for line in terminal.verdicts(models):
            echo(line)
        console.print()
    console.print(terminal.block(models, console.width))
    echo(f"page: {page}")
