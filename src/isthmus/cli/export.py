"""``isthmus export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from isthmus.cli import exit_codes
from isthmus.cli.options import FailUnder, argument, complete, text
from isthmus.cli.output import echo
from isthmus.core import config

FORMATS = ("cyclonedx", "examples", "huggingface", "json", "junit", "latex", "markdown", "parquet", "report", "sarif")
"""Keys of ``isthmus.report.exports.formats.FORMATS``, which imports more than a command's help needs."""


def export(
    runs: Annotated[list[Path], argument("Audited run folders.", "RUN")],
    formats: Annotated[
        str, text(f"Comma-separated: {', '.join(FORMATS)}.", "NAMES", autocompletion=complete(*FORMATS))
    ],
    out: Annotated[Path, text("Folder to write to.", "FOLDER")] = Path("."),
    fail_under: FailUnder = None,
) -> None:
    """Write stored results of audits in the formats of other tools, one file for each format.

    Exit code 6, once all files are written, if an accuracy is below a threshold of --fail-under.
    """
    from isthmus.report import thresholds
    from isthmus.report.exports.formats import write
    from isthmus.report.loading import load_all

    models = load_all(runs)
    judged = thresholds.judged(models, thresholds.parse(fail_under) if fail_under is not None else {})
    for path in write(config.split_names(formats), models, out, judged):
        echo(f"wrote: {path}")
    exit_codes.stop_at_thresholds(judged)
