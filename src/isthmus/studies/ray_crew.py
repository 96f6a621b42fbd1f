"""Who measures a study's cells: workers on a Ray cluster, each with its own cells.

As with processes on one machine, a worker lists the cells for itself and leaves what it measures in the study's folder,
which all machines share. One that is lost, with its machine or alone, loses the piece of work it was at: another goes
on with that, in the middle of a training run or an attack.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isthmus.cluster import LOSSES, Badge, Cluster, losses
from isthmus.errors import IsthmusError
from isthmus.studies import catalogue
from isthmus.studies.crews import LAST_WORDS, OFTEN, Listing
from isthmus.studies.display import Display
from isthmus.studies.workbench import Cell, Workbench


@dataclass(eq=False)
class _Hired:
    """A worker, the number of the cell it is at (None where it waits for one), and what it was asked.

    ``arrived`` says that it has answered: until then it may wait for room that is not there any more.
    """

    place: int
    actor: Any
    cell: int | None = None
    arrived: bool = False
    outcome: Any = field(default=None, repr=False)
    news: Any = field(default=None, repr=False)


class RayCrew:
    """Workers on a cluster share the cells; each cell goes to whoever is free. A :class:`isthmus.studies.crews.Crew`.

    Args:
        study: its name.
        config: its options, as plain data.
        root: folder of all studies, under the same path on all machines.

    Raises:
        ConfigError: Ray is not installed, no cluster is there, or no worker fits into it.
        FileError: the folder cannot be written.
    """

    def __init__(self, study: str, config: dict[str, Any], root: Path, cluster: Cluster, display: Display) -> None:
        self._ray = cluster.connect()
        self.cluster, self.jobs, self.display = cluster, cluster.room(), display
        self._bench = Workbench(root)
        self._badge = Badge.mine(root)
        self._given = (study, config, str(root.resolve()), cluster.cpus, self._badge)
        self._workers: list[_Hired] = []
        self._lost: Counter[int] = Counter()
        self._asked = 0.0

    def work(self, stage: int, cells: Sequence[Cell], left: Sequence[int]) -> Iterator[tuple[int, str]]:
        """See :class:`isthmus.studies.crews.Crew`.

        Raises:
            IsthmusError: what no other cell would survive, as in :meth:`isthmus.studies.workbench.Workbench.attempt`.
        """
        waiting, self._lost = deque(left), Counter()
        while waiting or self._busy():
            while waiting and (worker := self._free()):
                worker.cell = waiting.popleft()
                self.display.at(worker.place, cells[worker.cell].name, "waiting for room in the cluster", 0, 0)
                worker.outcome = worker.actor.attempt.remote(stage, worker.cell)
            outcomes = {worker.outcome: worker for worker in self._busy()}
            for ready in self._ray.wait(list(outcomes), timeout=OFTEN)[0]:
                yield from self._hear(outcomes[ready], cells, waiting)
            self._ask_around(cells)
            self._call_off(waiting)

    def _call_off(self, waiting: deque[int]) -> None:
        """Give a cell to an idle worker rather than to one that finds no room, as after the loss of a machine."""
        late = [worker for worker in self._busy() if not worker.arrived]
        if waiting or not late or len(self._busy()) == len(self._workers):
            return
        worker = late[0]
        assert worker.cell is not None
        waiting.append(worker.cell)
        self._workers.remove(worker)
        self.display.idle(worker.place)
        self.cluster.let_go(worker.actor)

    def _busy(self) -> list[_Hired]:
        return [worker for worker in self._workers if worker.cell is not None]

    def _free(self) -> _Hired | None:
        """A worker without work, hired where there is none and one more may be."""
        for worker in self._workers:
            if worker.cell is None:
                return worker
        if len(self._workers) == self.jobs:
            return None
        taken = {worker.place for worker in self._workers}
        place = next(place for place in range(self.jobs) if place not in taken)
        # two calls at once: one works, one says how far that is
        worker = _Hired(place, self.cluster.hire(Worker, *self._given, concurrency=2))
        self._workers.append(worker)
        return worker

    def _hear(self, worker: _Hired, cells: Sequence[Cell], waiting: deque[int]) -> Iterator[tuple[int, str]]:
        """Take a worker's outcome; gives its cell where that is over, or puts it back where the worker was lost."""
        number = worker.cell
        assert number is not None
        worker.cell, worker.arrived = None, True
        self.display.idle(worker.place)
        try:
            kind, content = self._ray.get(worker.outcome)
        except losses() as error:
            self._workers.remove(worker)
            if self._bench.kept(cells[number]) is not None:  # it was lost between its last two acts
                yield number, ""
                return
            self._lost[number] += 1
            if self._lost[number] < LOSSES:
                waiting.appendleft(number)
                return
            said = str(error).strip().partition("\n")[0]
            yield number, f"its worker was lost {LOSSES} times ({said})"
            return
        if kind == "stop":
            raise content
        yield number, content

    def _ask_around(self, cells: Sequence[Cell]) -> None:
        """Ask busy workers how far they are, and show what those say that were asked before."""
        asked = {worker.news: worker for worker in self._workers if worker.news is not None}
        for ready in self._ray.wait(list(asked), num_returns=len(asked), timeout=0)[0] if asked else ():
            worker, said = asked[ready], None
            worker.news = None
            with contextlib.suppress(*losses()):  # its outcome says so, too
                said = self._ray.get(ready)
            worker.arrived |= said is not None
            if said and worker.cell is not None:
                self.display.at(worker.place, cells[worker.cell].name, *said)
        if time.monotonic() - self._asked > OFTEN:
            self._asked = time.monotonic()
            for worker in self._busy():
                worker.news = worker.news or worker.actor.at.remote()

    def close(self) -> None:
        """Have busy workers save what they are at, and end them all."""
        busy = self._busy()
        with contextlib.suppress(*losses()):
            for worker in busy:
                worker.actor.stop.remote()
            if busy:
                outcomes = [worker.outcome for worker in busy]
                self._ray.wait(outcomes, num_returns=len(outcomes), timeout=LAST_WORDS)
        for worker in self._workers:
            self.cluster.let_go(worker.actor)
        self._workers = []
        self._badge.lay_down()


class Worker:
    """What runs on a machine of the cluster: measures cells when asked, and says meanwhile how far it is."""

    def __init__(self, study: str, config: dict[str, Any], root: str, threads: int, badge: Badge) -> None:
        self._given = (study, config, Path(root), threads)
        self._badge = badge
        self._listing: Listing | None = None
        self._bench: Workbench | None = None
        self._state: tuple[str, float, float] = ("starting", 0.0, 0.0)

    def attempt(self, stage: int, number: int) -> tuple[str, Any]:
        """Measure a cell: ("over", "" or why it failed), or ("stop", an error that no other cell would survive)."""
        try:
            self._state = ("starting", 0.0, 0.0)
            bench, listing = self._begin()
            return "over", bench.attempt(listing.cell(stage, number))
        except IsthmusError as error:
            return "stop", error
        except KeyboardInterrupt:
            return "over", "it was stopped"

    def _begin(self) -> tuple[Workbench, Listing]:
        if self._bench is None or self._listing is None:
            import torch

            self._badge.check()
            study, config, root, threads = self._given
            torch.set_num_threads(threads)
            module = catalogue.find(study)
            self._bench = Workbench(root, self._note)
            self._listing = Listing(self._bench, module.cells(module.Config.model_validate(config), self._bench))
        return self._bench, self._listing

    def _note(self, what: str, done: float, total: float) -> None:
        self._state = (what, done, total)

    def at(self) -> tuple[str, float, float]:
        """What it does, how far it is in that, and of how much."""
        return self._state

    def stop(self) -> None:
        """Have it save what it is at, and end that."""
        from isthmus.training import interrupts

        interrupts.ask()
