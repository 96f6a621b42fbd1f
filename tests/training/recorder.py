"""A logger of a user's own, named as ``tests.training.recorder:Recorder`` in recipes."""

import json
import os
from typing import Any

from isthmus.training.loggers.logger import LoggedRun, Logger, LoggerState, Row


class Recorder(Logger):
    """Appends what it is told to ``recorded.jsonl`` of the run folder; raises an error at ``fail_at`` steps."""

    fail_at: int | None = None

    def start(self, run: LoggedRun) -> LoggerState:
        if self.fail_at == 0:
            raise ConnectionError("no server")
        return RecorderState(run, self.fail_at)


class RecorderState(LoggerState):
    def __init__(self, run: LoggedRun, fail_at: int | None) -> None:
        self.folder, self.fail_at = run.folder, fail_at
        self.record(started=run.step, id=run.id, recipe=run.recipe["name"], process=os.getpid())

    def record(self, **what: Any) -> None:
        with (self.folder / "recorded.jsonl").open("a") as file:
            file.write(json.dumps(what) + "\n")

    def write(self, row: Row) -> None:
        if self.fail_at is not None and (row["step"] or 0) >= self.fail_at:
            raise ConnectionError("no server")
        self.record(row=dict(row))

    def close(self, finished: bool) -> None:
        self.record(finished=finished)
