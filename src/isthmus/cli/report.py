"""``isthmus report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from isthmus.cli.options import Everything, Json, argument, text
from isthmus.cli.output import echo, show
from isthmus.core import files


def report(
    runs: Annotated[list[Path], argument("Audited run folders; folders without an audit are skipped.", "RUN")],
    out: Annotated[Path, text("Page to write.", "FILE")] = Path("report.html"),
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """Write one page that compares audited runs, from their stored results."""
    from isthmus.report import page
    from isthmus.report.loading import is_audited, load_all

    given = [run for run in runs if files.real(run) != files.real(out)]  # "runs/* --out runs/index.html", called again
    skipped = [run for run in given if files.exists(run) and not is_audited(run)]
    chosen = [run for run in given if run not in skipped]
    if chosen and skipped:
        names = ", ".join(map(str, skipped))
        echo(f"Warning: skipped, since they hold no finished audit: {names}", err=True)
    written = page.write(chosen or given, out)
    show(load_all(chosen), written, everything, as_json)
