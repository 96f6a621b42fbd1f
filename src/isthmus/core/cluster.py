"""Workers on a Ray cluster: where they are hired, and what is told of one that is lost.

Ray is an extra (``pip install 'isthmus[ray]'``), imported when workers are wanted and not before. Nothing of isthmus
schedules: Ray places workers, and whoever hired them hands out the work and does it again where one is lost.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.core import provenance
from isthmus.core.errors import ConfigError, FileError, one_line
from isthmus.core.ray_cluster import Cluster

LOSSES = 3
"""So often one piece of work may lose its worker, before it counts as what ends workers."""
_PASSED_ON = ("ISTHMUS_DATA", "PYTHONPATH")
"""Settings of the caller's environment that workers get."""


class Staff:
    """Workers of one kind on a cluster, as many as fit, of which some are at work and the others idle.

    Work is given only to one that has just answered. So one that was lost while it was idle costs nothing, and one that
    finds no room any more, as after the loss of a machine, keeps nobody waiting.

    Args:
        kind: class of the workers, made with ``arguments``.
        concurrency: calls that one answers at once, each in a thread of its own.

    Raises:
        ConfigError: Ray is not installed, no cluster is there, or no worker fits into it.
    """

    def __init__(self, cluster: Cluster, kind: type, *arguments: Any, concurrency: int = 1) -> None:
        self.ray, self.size = cluster.connect(), cluster.room()
        self._kind = self.ray.remote(kind).options(
            num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_restarts=0, max_concurrency=concurrency
        )
        self._arguments = arguments
        self._idle: dict[Any, Any] = {}  # worker -> what will say that it is there, once it was asked
        self._working: set[Any] = set()
        self._ended = 0  # workers, one after another, that ended instead of answering

    def free(self, wanted: int, seconds: float) -> Any | None:
        """A worker that was idle and answers, which is now at work; None where none does within that time.

        Args:
            wanted: how many would find work: more are hired where there are fewer idle ones.

        Raises:
            ConfigError: workers end before they answer, each that is hired.
        """
        room = self.size - len(self._idle) - len(self._working)
        for _ in range(min(wanted - len(self._idle), room)):
            self._idle[self._kind.remote(*self._arguments)] = None
        for worker, answer in self._idle.items():
            self._idle[worker] = answer or worker.__ray_ready__.remote()
        asked = {answer: worker for worker, answer in self._idle.items()}
        if not asked or not self.ray.wait(list(asked), timeout=seconds)[0]:
            return None
        answers = self.ray.wait(list(asked), num_returns=len(asked), timeout=0)[0]
        for answer in answers:
            self._idle[asked[answer]] = None  # what it says now says nothing of later
        for answer in answers:
            worker = asked[answer]
            del self._idle[worker]
            try:
                self.ray.get(answer)
            except losses() as error:
                self._end(worker)
                self._ended += 1
                if self._ended > LOSSES * self.size:
                    raise ConfigError(
                        f"Workers on the cluster end as soon as they are hired ({one_line(error)})."
                    ) from None
                continue
            self._ended = 0
            self._working.add(worker)
            return worker
        return None

    def back(self, worker: Any) -> None:
        """Its work is over, and it is idle."""
        self._working.remove(worker)
        self._idle[worker] = None

    def lost(self, worker: Any) -> None:
        """It is gone, or to be ended; another may be hired in its place."""
        self._working.remove(worker)
        self._end(worker)

    def close(self) -> None:
        """End all of them."""
        for worker in (*self._idle, *self._working):
            self._end(worker)
        self._idle, self._working = {}, set()

    def _end(self, worker: Any) -> None:
        with contextlib.suppress(Exception):  # a cluster that fell apart has ended it already
            self.ray.kill(worker)


def losses() -> tuple[type[Exception], ...]:
    """What Ray raises where a worker, or the machine it was on, is gone."""
    from ray import exceptions

    return (exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.NodeDiedError)


@dataclass(frozen=True)
class Badge:
    """What a worker is to have in common with whoever hired it.

    Attributes:
        version, commit: of isthmus.
        token: a file that was written for this, in the folder that all work goes to; "" where files do not matter.
    """

    version: str | None
    commit: str | None
    token: str = ""

    @classmethod
    def mine(cls, folder: Path | None = None) -> Badge:
        """This process's own; leaves the file in the folder (see :meth:`lay_down`)."""
        made = provenance.collect()
        token = ""
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                path = folder / f".shared-{uuid.uuid4().hex}"
                path.write_text("a file that workers look for", encoding="utf-8")
            except OSError as error:
                raise FileError(f"Cannot write to {folder}: {error.strerror}; choose another folder.") from None
            token = str(path.resolve())
        return cls(made["packages"]["isthmus"], made["commit"], token)

    def lay_down(self) -> None:
        """Remove the file."""
        if self.token:
            Path(self.token).unlink(missing_ok=True)

    def check(self) -> None:
        """On a worker: that it is of the same code, and sees the same files.

        Raises:
            ConfigError: it does not; says on which machine.
        """
        mine = Badge.mine()
        if (mine.version, mine.commit) != (self.version, self.commit):
            raise ConfigError(
                f"The worker on {os.uname().nodename} has isthmus {mine.version} ({mine.commit or 'installed'}), and "
                f"here it is {self.version} ({self.commit or 'installed'}); install the same on all machines."
            )
        if self.token and not Path(self.token).exists():
            raise ConfigError(
                f"The worker on {os.uname().nodename} does not see {Path(self.token).parent}; give a folder that all "
                "machines share."
            )
