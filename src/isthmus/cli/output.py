"""What commands print."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from isthmus.core.errors import printable

if TYPE_CHECKING:
    from isthmus.core.types import Interval
    from isthmus.report.loading import AuditedModel


def echo(text: str, err: bool = False) -> None:
    """Print a line."""
    typer.echo(printable(text), err=err)


def echo_wrapped(text: str) -> None:
    """Print text in lines as wide as the terminal (80 columns without one), broken only between words."""
    width = shutil.get_terminal_size().columns
    for line in textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False):
        echo(line)


def percentage(fraction: float) -> str:
    """A fraction in percent, with two decimals."""
    return f"{100 * fraction:.2f}%"


def interval(given: Interval) -> str:
    """An interval of fractions in percent."""
    return f"[{100 * given.low:.2f}, {100 * given.high:.2f}]"


def compare(folders: list[Path]) -> list[AuditedModel]:
    """Print the comparison table of audited folders, what did not pass and why, and the verdicts."""
    from isthmus.report import terminal
    from isthmus.report.loading import load_all

    subjects = load_all(folders)
    console = Console()
    console.print(terminal.comparison(subjects))
    remarks = terminal.remarks(subjects)
    if remarks.row_count:
        console.print(remarks)
    for line in terminal.verdicts(subjects):
        echo(line)
    return subjects
