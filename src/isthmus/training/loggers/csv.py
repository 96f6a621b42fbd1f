"""One table of all metrics, ``metrics.csv`` in the run folder.

It has a row for each line of ``metrics.jsonl``, and a column for each number. It is made anew from that file at every
checkpoint, so that a resumed run continues it and a metric that appears later gets its column in all rows.
"""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path
from typing import Literal

from isthmus.core import files
from isthmus.training.loggers.logger import LoggedRun, Logger, LoggerState, numbers_of


class CSV(Logger):
    """``metrics.csv``: ``step``, ``epoch`` (counted from 0), then every metric in the order of appearance.

    A cell is empty if its line has no such number, or one that is not finite.
    """

    name: Literal["csv"] = "csv"

    def start(self, run: LoggedRun) -> LoggerState:
        """Continue the table of a run."""
        return CSVState(run.folder)


class CSVState(LoggerState):
    """The table of one run, derived from its ``metrics.jsonl``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def checkpoint(self) -> None:
        """Replace the table.

        Raises:
            FileError: it cannot be written.
        """
        rows = [numbers_of(line) for line in files.read_json_lines(self.folder / "metrics.jsonl")]
        columns = list(dict.fromkeys(["step", "epoch", *(name for row in rows for name in row)]))
        text = StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        files.write_bytes(self.folder / "metrics.csv", text.getvalue().encode())

    def close(self, finished: bool) -> None:
        """Replace the table, with rows after the last checkpoint."""
        self.checkpoint()
