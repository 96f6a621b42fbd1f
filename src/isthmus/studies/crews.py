"""Who measures a study's cells: this process alone, or several on this machine, each with its own cells.

A worker lists the study's cells for itself, from the same config, and is told which to measure; the measurement goes
to its file. So no closure travels between processes, and what a worker that was killed had finished is there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from isthmus.core.errors import IsthmusError
from isthmus.studies import catalogue
from isthmus.studies.display import Display
from isthmus.studies.store import Experiment, ResultStore

OFTEN = 0.2
"""Seconds between two reports of a worker on the same piece of work."""
LAST_WORDS = 90.0
"""Seconds for workers to save what they are at, after Ctrl-C; more than they give to processes of their own."""


class Crew(Protocol):
    """Measures cells."""

    def work(self, stage: int, cells: Sequence[Experiment], left: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Measure some of a stage's cells; gives the number of each when it is over, and "" or why it failed."""

    def close(self) -> None:
        """Nothing more will be asked."""


class Alone:
    """This process measures one cell after another."""

    def __init__(self, bench: ResultStore, display: Display) -> None:
        self.bench, self.display, self._name = bench, display, ""
        bench.report = lambda what, done, total: display.at(0, self._name, what, done, total)

    def work(self, stage: int, cells: Sequence[Experiment], left: Sequence[int]) -> Iterator[tuple[int, str]]:
        """See :class:`Crew`."""
        for number in left:
            self._name = cells[number].name
            self.display.at(0, self._name, "", 0, 0)
            yield number, self.bench.attempt(cells[number])

    def close(self) -> None:
        """See :class:`Crew`."""


@dataclass(eq=False)
class _Worker:
    """A process, the pipe to it, and the number of the cell it is at; None where it waits for one."""

    place: int
    process: Any
    pipe: Connection
    cell: int | None = None


class Processes:
    """Several processes on this machine share the cells; each cell goes to whoever is free.

    Args:
        study: its name.
        config: its options, as plain data.
        root: folder of all studies.
        jobs: processes at once. They share out the processors, and a GPU.
    """

    def __init__(self, study: str, config: dict[str, Any], root: Path, jobs: int, display: Display) -> None:
        self._given = (study, config, str(root), jobs)
        self.jobs, self.display, self._bench = jobs, display, ResultStore(root)
        self._workers: list[_Worker] = []

    def work(self, stage: int, cells: Sequence[Experiment], left: Sequence[int]) -> Iterator[tuple[int, str]]:
        """See :class:`Crew`.

        Raises:
            IsthmusError: what no other cell would survive, as in :meth:`isthmus.studies.store.ResultStore.attempt`.
        """
        waiting = deque(left)
        while waiting or any(worker.cell is not None for worker in self._workers):
            busy = sum(worker.cell is not None for worker in self._workers)
            while len(self._workers) < min(self.jobs, busy + len(waiting)):
                self._hire()
            for worker in self._workers:
                if worker.cell is None and waiting:
                    worker.cell = waiting.popleft()
                    self.display.at(worker.place, cells[worker.cell].name, "starting", 0, 0)
                    with contextlib.suppress(OSError):  # it is gone, as its pipe will tell
                        worker.pipe.send((stage, worker.cell))
            ready = wait([worker.pipe for worker in self._workers], timeout=1.0)
            for worker in [worker for worker in self._workers if worker.pipe in ready]:
                yield from self._hear(worker, cells)

    def _hear(self, worker: _Worker, cells: Sequence[Experiment]) -> Iterator[tuple[int, str]]:
        """Take one message of a worker; gives its cell where that is over."""
        number = worker.cell
        try:
            kind, *content = worker.pipe.recv()
        except (EOFError, OSError):
            self._workers.remove(worker)
            self.display.idle(worker.place)
            worker.process.join()
            if number is not None:
                kept = self._bench.kept(cells[number]) is not None  # it may have gone between its last two acts
                yield number, "" if kept else f"its process ended (exit code {worker.process.exitcode})"
            return
        if kind == "stop":
            worker.cell = None
            raise content[0]
        if kind == "at" and number is not None:
            self.display.at(worker.place, cells[number].name, *content)
        elif kind == "over" and number is not None:
            worker.cell = None
            self.display.idle(worker.place)
            yield number, content[0]

    def _hire(self) -> None:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, *self._given))
        process.start()
        theirs.close()
        taken = {worker.place for worker in self._workers}
        place = next(place for place in range(self.jobs) if place not in taken)
        self._workers.append(_Worker(place, process, ours))

    def close(self) -> None:
        """Let idle workers go; have busy ones save what they are at, and end them if that takes long."""
        for worker in self._workers:
            if worker.cell is None:
                worker.pipe.close()
            elif worker.process.is_alive():
                os.kill(worker.process.pid, signal.SIGINT)
        until = time.monotonic() + LAST_WORDS
        while time.monotonic() < until and any(worker.process.is_alive() for worker in self._workers):
            self._listen_on()
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self._workers = []

    def _listen_on(self) -> None:
        """Hear what workers that are to end still say: a report into a closed pipe would end their work unsaved."""
        busy = [worker.pipe for worker in self._workers if not worker.pipe.closed]
        if not busy:
            time.sleep(0.02)
        ready = wait(busy, timeout=OFTEN) if busy else []
        for pipe in [pipe for pipe in busy if pipe in ready]:
            try:
                over = pipe.recv()[0] != "at"  # it was done before it heard, and waits for more
            except (EOFError, OSError):
                over = True
            if over:
                pipe.close()


def _serve(pipe: Connection, study: str, config: dict[str, Any], root: str, jobs: int) -> None:
    """A worker's whole life: until the pipe is closed, or SIGINT came and what it was at is saved."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C in a terminal reaches the parent alone, which passes it on once
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent started in the background may ignore it

    import torch

    from isthmus.data.prefetch import threads

    os.environ["LOCAL_WORLD_SIZE"] = str(jobs)  # as torchrun says to processes that share a machine
    torch.set_num_threads(threads())
    found = catalogue.find(study)
    bench = ResultStore(Path(root), _throttled(pipe))
    listing = Listing(bench, found.experiments(found.config.model_validate(config), bench))
    # where the parent was killed, the pipe is closed, and here everything ends with the next report
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            stage, number = pipe.recv()
            try:
                pipe.send(("over", bench.attempt(listing.cell(stage, number))))
            except IsthmusError as error:
                pipe.send(("stop", error))


class Listing:
    """A study's cells as a worker lists them: a later stage needs the values of the stages before, from their files."""

    def __init__(self, bench: ResultStore, stages: Any) -> None:
        self._bench, self._stages = bench, stages
        self._cells: list[Sequence[Experiment]] = []

    def cell(self, stage: int, number: int) -> Experiment:
        """One of a stage's cells."""
        while len(self._cells) <= stage:
            self._cells.append(self._stages.send(self._values() if self._cells else None))
        return self._cells[stage][number]

    def _values(self) -> list[Any]:
        kept = (self._bench.kept(cell) for cell in self._cells[-1])
        return [each["value"] for each in kept if each is not None]


def _throttled(pipe: Connection) -> Any:
    last: dict[str, Any] = {"what": None, "when": 0.0}

    def report(what: str, done: float, total: float) -> None:
        kind, now = what.partition(" ")[0], time.monotonic()
        if kind == last["what"] and now - last["when"] < OFTEN:
            return
        last.update(what=kind, when=now)
        pipe.send(("at", what, done, total))

    return report
