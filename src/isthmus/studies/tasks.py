"""The task of a study's workers: list the experiments, and measure those that are given by position.

So no closure is sent between processes. Workers write measurements to the store, where the caller finds them even if
the worker was killed afterwards.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isthmus.core.errors import ConfigError, FileError
from isthmus.core.execution import POLL, Executor, Report
from isthmus.studies import catalogue
from isthmus.studies.store import Experiment, ResultStore, Stages
from isthmus.studies.store import Report as Tell

Shard = tuple[int, int]
"""An experiment: its stage, and its position there."""


class ExperimentTask:
    """Measures experiments of a study in a worker; returns "", or why an experiment failed.

    Args:
        study: its name.
        config: its options, as plain data.
        root: folder of all studies, under the same path for all workers.
        token: a file in the folder that a worker must find; "" on the caller's machine.

    Raises:
        ConfigError, DataError, FileError: a fault that would stop every other experiment, too.
    """

    called = "study"

    def __init__(self, study: str, config: dict[str, Any], root: Path, executor: Executor, token: str = "") -> None:
        self.study, self.config, self.root, self.token = study, config, str(root.resolve()), token
        self.workers, self.threads = executor.workers, executor.threads
        self._store: ResultStore | None = None
        self._stages: Stages | None = None
        self._listed: list[Sequence[Experiment]] = []

    def __call__(self, shard: Shard, report: Report) -> str:
        """See :meth:`isthmus.studies.store.ResultStore.attempt`."""
        report(("starting", 0.0, 0.0))
        self._use_threads()
        store = self._store or self._begin()
        experiment = self._experiment(store, *shard)
        if store.kept(experiment) is not None:  # measured by a worker that was lost afterwards
            return ""
        store.report = _telling(report)
        return store.attempt(experiment)

    def _use_threads(self) -> None:
        import torch

        from isthmus.data.prefetch import threads

        if self.threads is None:
            os.environ["LOCAL_WORLD_SIZE"] = str(self.workers)  # as torchrun tells processes that share a machine
        torch.set_num_threads(self.threads or threads())

    def _begin(self) -> ResultStore:
        if self.token and not Path(self.token).exists():
            raise ConfigError(
                f"The worker on {os.uname().nodename} does not see {self.root}; choose a folder that all machines "
                "share."
            )
        study = catalogue.find(self.study)
        self._store = ResultStore(Path(self.root))
        self._stages = study.experiments(study.config.model_validate(self.config), self._store)
        return self._store

    def _experiment(self, store: ResultStore, stage: int, number: int) -> Experiment:
        """List the stages up to this one; each needs the values of the one before, from their files."""
        assert self._stages is not None
        while len(self._listed) <= stage:
            if self._listed:
                kept = (store.kept(experiment) for experiment in self._listed[-1])
                self._listed.append(self._stages.send([each["value"] for each in kept if each is not None]))
            else:
                self._listed.append(next(self._stages))
        return self._listed[stage][number]


def here(store: ResultStore, experiments: Sequence[Experiment]) -> Any:
    """The task that measures these experiments of one stage in the calling process."""

    def task(shard: Shard, report: Report) -> str:
        report(("", 0.0, 0.0))
        store.report = lambda what, done, total: report((what, done, total))
        return store.attempt(experiments[shard[1]])

    return task


def _telling(report: Report) -> Tell:
    """Forward progress, a few times a second for each kind of work."""
    last = ("", 0.0)

    def tell(what: str, done: float, total: float) -> None:
        nonlocal last
        kind, now = what.partition(" ")[0], time.monotonic()
        if kind == last[0] and now - last[1] < POLL:
            return
        last = kind, now
        try:
            report((what, done, total))
        except KeyboardInterrupt:  # from an executor that sends no signal
            from isthmus.training import interrupts

            interrupts.request_stop()
            if kind != "training":  # which leaves a checkpoint first
                raise

    return tell


@contextmanager
def shared_file(folder: Path) -> Iterator[str]:
    """A temporary file by which workers on other machines recognise the folder.

    Raises:
        FileError: the folder cannot be written.
    """
    path = folder.resolve() / f".shared-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text("a file that workers look for", encoding="utf-8")
    except OSError as error:
        raise FileError(f"Cannot write to {folder}: {error.strerror}; choose another folder.") from None
    try:
        yield str(path)
    finally:
        path.unlink(missing_ok=True)
