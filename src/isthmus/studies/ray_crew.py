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

from isthmus.core.cluster import LOSSES, Badge, Cluster, Staff, losses
from isthmus.core.errors import IsthmusError
from isthmus.studies import catalogue
from isthmus.studies.crews import LAST_WORDS, OFTEN, Listing
from isthmus.studies.display import Display
from isthmus.studies.store import Experiment, ResultStore


@dataclass(eq=False)
class _Busy:
    """A worker at work: its line in the display, the number of its cell, what will come of it, what it was asked."""

    place: int
    worker: Any
    cell: int
    outcome: Any = field(repr=False)
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
        self.display, self._bench = display, ResultStore(root)
        self._ray, self._badge = cluster.connect(), Badge.mine(root)
        given = (study, config, str(root.resolve()), cluster.cpus, self._badge)
        # two calls at once: one works, one says how far that is
        self._staff = Staff(cluster, Worker, *given, concurrency=2)
        self._busy: list[_Busy] = []
        self._lost: Counter[int] = Counter()
        self._asked = 0.0

    def work(self, stage: int, cells: Sequence[Experiment], left: Sequence[int]) -> Iterator[tuple[int, str]]:
        """See :class:`isthmus.studies.crews.Crew`.

        Raises:
            IsthmusError: what no other cell would survive, as in :meth:`isthmus.studies.store.ResultStore.attempt`.
        """
        waiting, self._lost = deque(left), Counter()
        while waiting or self._busy:
            while waiting and (worker := self._staff.free(len(waiting), 0.0 if self._busy else OFTEN)):
                self._give(worker, stage, waiting.popleft())
            outcomes = {busy.outcome: busy for busy in self._busy}
            for ready in self._ray.wait(list(outcomes), timeout=OFTEN)[0] if outcomes else ():
                yield from self._hear(outcomes[ready], cells, waiting)
            self._ask_around(cells)

    def _give(self, worker: Any, stage: int, cell: int) -> None:
        taken = {busy.place for busy in self._busy}
        place = next(place for place in range(self._staff.size) if place not in taken)
        self._busy.append(_Busy(place, worker, cell, worker.attempt.remote(stage, cell)))

    def _hear(self, busy: _Busy, cells: Sequence[Experiment], waiting: deque[int]) -> Iterator[tuple[int, str]]:
        """Take a worker's outcome; gives its cell where that is over, or puts it back where the worker was lost."""
        self._busy.remove(busy)
        self.display.idle(busy.place)
        number = busy.cell
        try:
            kind, content = self._ray.get(busy.outcome)
        except losses() as error:
            self._staff.lost(busy.worker)
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
        self._staff.back(busy.worker)
        if kind == "stop":
            raise content
        yield number, content

    def _ask_around(self, cells: Sequence[Experiment]) -> None:
        """Ask busy workers how far they are, and show what those say that were asked before."""
        asked = {busy.news: busy for busy in self._busy if busy.news is not None}
        for ready in self._ray.wait(list(asked), num_returns=len(asked), timeout=0)[0] if asked else ():
            busy = asked[ready]
            busy.news = None
            with contextlib.suppress(*losses()):  # its outcome says so, too
                self.display.at(busy.place, cells[busy.cell].name, *self._ray.get(ready))
        if time.monotonic() - self._asked > OFTEN:
            self._asked = time.monotonic()
            for busy in self._busy:
                busy.news = busy.news or busy.worker.at.remote()

    def close(self) -> None:
        """Have busy workers save what they are at, and end them all."""
        with contextlib.suppress(*losses()):
            for busy in self._busy:
                busy.worker.stop.remote()
            if self._busy:
                outcomes = [busy.outcome for busy in self._busy]
                self._ray.wait(outcomes, num_returns=len(outcomes), timeout=LAST_WORDS)
        self._busy = []
        self._staff.close()
        self._badge.lay_down()


class Worker:
    """What runs on a machine of the cluster: measures cells when asked, and says meanwhile how far it is."""

    def __init__(self, study: str, config: dict[str, Any], root: str, threads: int, badge: Badge) -> None:
        self._given = (study, config, Path(root), threads)
        self._badge = badge
        self._listing: Listing | None = None
        self._bench: ResultStore | None = None
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

    def _begin(self) -> tuple[ResultStore, Listing]:
        if self._bench is None or self._listing is None:
            import torch

            self._badge.check()
            study, config, root, threads = self._given
            torch.set_num_threads(threads)
            found = catalogue.find(study)
            self._bench = ResultStore(root, self._note)
            self._listing = Listing(self._bench, found.experiments(found.config.model_validate(config), self._bench))
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
