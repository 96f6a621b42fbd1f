"""Workers on a Ray cluster: an executor that survives the loss of workers and machines.

Ray is an extra (``pip install 'isthmus[ray]'``) and imported only when workers are started. It places the workers.
Each is an actor, since Ray does not reuse the processes of tasks that need a GPU.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isthmus.core import provenance
from isthmus.core.errors import ConfigError, one_line
from isthmus.core.execution import (
    KEPT,
    POLL,
    Kind,
    Packed,
    Received,
    Task,
    TaskCache,
    WorkerExecutor,
    error_message,
    message,
    pack,
)

_PASSED_ON = ("ISTHMUS_DATA", "PYTHONPATH")
"""Environment variables of the caller that workers get."""
ANSWER_SECONDS = 10.0
"""Seconds in which an idle worker must answer; one that does not is replaced."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster and the size of the workers on it.

    Attributes:
        address: such as "auto" or "ray://head:10001". None for the one that ``RAY_ADDRESS`` names, or else a cluster of
            this machine alone, which ends with this process.
        workers: how many at most; None for as many as fit.
        cpus: processors of each worker, and threads that it computes with.
        gpus: of each worker; a fraction shares one.

    Raises:
        ConfigError: a size that is not positive.
    """

    address: str | None = None
    workers: int | None = None
    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if (self.workers is not None and self.workers < 1) or self.cpus < 1 or self.gpus < 0:
            raise ConfigError(
                "A cluster needs at least one worker, each with at least one processor; got "
                f"workers={self.workers}, cpus={self.cpus}, gpus={self.gpus:g}."
            )

    def connect(self) -> Any:
        """The module ``ray``, connected.

        Raises:
            ConfigError: Ray is not installed, or there is no cluster at the address.
        """
        try:
            import ray
        except ImportError:
            raise ConfigError("Workers on a cluster need Ray: pip install 'isthmus[ray]'.") from None
        if not ray.is_initialized():
            environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
            try:
                ray.init(
                    self.address,
                    runtime_env={"env_vars": environment},
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"There is no Ray cluster at {self.address or os.environ.get('RAY_ADDRESS') or 'this machine'} "
                    f"({one_line(error)}); start one with `ray start --head`, and give its address."
                ) from None
        return ray

    def room(self) -> int:
        """How many workers fit into the cluster now, at most :attr:`workers`.

        Raises:
            ConfigError: none fits.
        """
        have: Mapping[str, float] = self.connect().cluster_resources()
        fit = int(have.get("CPU", 0.0) // self.cpus)
        if self.gpus:
            fit = min(fit, int(have.get("GPU", 0.0) / self.gpus + 1e-9))
        if fit < 1:
            raise ConfigError(
                f"No worker of {self.cpus} processors and {self.gpus:g} GPUs fits into the cluster, which has "
                f"{have.get('CPU', 0.0):g} and {have.get('GPU', 0.0):g} in all."
            )
        return fit if self.workers is None else min(self.workers, fit)


@dataclass(eq=False)
class Worker:
    """An actor with its pending calls: the one that runs a shard (or starts it), and the one for its progress."""

    actor: Any
    call: Any
    latest: Any = field(default=None)


class RayExecutor(WorkerExecutor[Worker]):
    """Workers on a Ray cluster, started when there are shards.

    Raises:
        ConfigError: Ray is not installed, there is no cluster, or no worker fits into it.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._ray = cluster.connect()
        super().__init__(cluster.room())
        self.threads, self.device = cluster.cpus, "cuda" if cluster.gpus else "cpu"
        self._actor = self._ray.remote(Actor).options(
            num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_restarts=0, max_concurrency=2
        )
        self._sent: dict[int, Any] = {}  # tasks in the cluster's store
        self._asked = 0.0

    def _start(self) -> Worker:
        actor = self._actor.remote(installed())
        return Worker(actor, actor.begin.remote())

    def _alive(self, worker: Worker) -> bool:
        try:
            self._ray.get(worker.actor.latest.remote(), timeout=ANSWER_SECONDS)
        except (*_losses(), self._ray.exceptions.GetTimeoutError):
            return False
        return True

    def _pack(self, what: object) -> Packed:
        from ray import cloudpickle  # sends classes of the caller's script by value

        return pack(what, cloudpickle.dumps)

    def _send(self, worker: Worker, number: int, task: Task, shard: Packed) -> None:
        if number not in self._sent:
            self._sent[number] = self._ray.put(self._pack(task))
            if len(self._sent) > KEPT:
                del self._sent[next(iter(self._sent))]
        # in a list, a reference is resolved by the worker, and only if it does not know the task
        worker.call = worker.actor.run.remote(number, [self._sent[number]], shard)

    def _receive(self, workers: Sequence[Worker], seconds: float) -> Iterator[Received[Worker]]:
        calls = {worker.call: worker for worker in workers if worker.call is not None}
        calls |= {worker.latest: worker for worker in workers if worker.latest is not None}
        if calls and self._ray.wait(list(calls), timeout=seconds)[0]:
            for call in self._ray.wait(list(calls), num_returns=len(calls), timeout=0)[0]:
                yield from self._answer(calls[call], call)
        if time.monotonic() - self._asked > POLL:
            self._asked = time.monotonic()
            for worker in self._busy:
                worker.latest = worker.latest or worker.actor.latest.remote()

    def _answer(self, worker: Worker, call: Any) -> Iterator[Received[Worker]]:
        if call is worker.latest:
            worker.latest = None
            with contextlib.suppress(*_losses()):  # its other call raises the same
                content = self._ray.get(call)
                if content is not None and worker.call is not None:
                    yield worker, *pickle.loads(content)
            return
        worker.call, worker.latest = None, None
        try:
            content = self._ray.get(call)
        except _losses() as error:
            yield worker, Kind.LOST, f"a worker on the cluster was lost ({one_line(error)[:200]})"
            return
        yield worker, *pickle.loads(content)

    def _interrupt(self, worker: Worker) -> None:
        worker.actor.stop.remote()

    def _end(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            with contextlib.suppress(Exception):  # a cluster that fell apart has ended it already
                self._ray.kill(worker.actor)


def _losses() -> tuple[type[Exception], ...]:
    """What Ray raises if a worker or its machine is gone."""
    from ray import exceptions

    return (exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.NodeDiedError)


# --- in a worker ---


class Actor:
    """Runs shards on a machine of the cluster. Another thread answers for its progress meanwhile."""

    def __init__(self, expected: tuple[str | None, str | None]) -> None:
        self._expected = expected
        self._tasks = TaskCache()
        self._latest: bytes | None = None
        self._stopping = False

    def begin(self) -> bytes:
        """READY, or the error that this worker has another version of isthmus."""
        try:
            check_installed(self._expected)
        except ConfigError as error:
            return error_message(error)
        return message(Kind.READY)

    def run(self, number: int, task: list[Any], shard: Packed) -> bytes:
        """Run a task on a shard; returns the message to send."""
        import ray

        self._latest, self._stopping = None, False
        return self._tasks.run(number, lambda: ray.get(task[0]), shard, self._report)

    def _report(self, value: object) -> None:
        self._latest = message(Kind.REPORT, value)
        if self._stopping:  # no signal reaches this thread
            raise KeyboardInterrupt

    def latest(self) -> bytes | None:
        """The latest report on the running shard."""
        return self._latest

    def stop(self) -> None:
        """Interrupt the shard at its next report."""
        self._stopping = True


def installed() -> tuple[str | None, str | None]:
    """Version and commit of isthmus."""
    made = provenance.collect()
    return made["packages"]["isthmus"], made["commit"]


def check_installed(expected: tuple[str | None, str | None]) -> None:
    """Compare this worker's isthmus with the caller's.

    Raises:
        ConfigError: it is another version or commit; names the machine.
    """
    mine = installed()
    if mine != expected:
        raise ConfigError(
            f"The worker on {os.uname().nodename} has isthmus {mine[0]} ({mine[1] or 'installed'}), and the caller has "
            f"{expected[0]} ({expected[1] or 'installed'}); install the same on all machines."
        )
