"""Run one task on many shards: here, in worker processes, or on a Ray cluster.

:class:`InProcess` runs shards in the calling process, :class:`isthmus.core.process_pool.ProcessPool` in processes of
this machine, and :class:`isthmus.core.ray_cluster.RayExecutor` on many machines.

A task is called with a shard and a function for progress reports, and returns the shard's result. Workers receive a
task once and keep it; shards and results are pickled. A shard whose worker is lost runs again on another worker.

``concurrent.futures`` and ``joblib`` do not fit: both end every worker when one dies, without telling which shard was
responsible, and neither has a channel for progress or for a request to stop.
"""

from __future__ import annotations

import pickle
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Generic, NamedTuple, Self, TypeVar

from isthmus.core.errors import ConfigError, IsthmusError, one_line

LOSSES = 3
"""A shard is given up after it has lost this many workers."""
KEPT = 4
"""Tasks that a worker keeps; an older one is sent again when it is needed."""
POLL = 0.2
"""Seconds to wait for a message of a worker."""

Report = Callable[[Any], None]
"""Called by a task with its progress. Later reports replace earlier ones. May raise KeyboardInterrupt."""
Task = Callable[[Any, Report], Any]
"""Called with a shard. On KeyboardInterrupt it may return a partial result."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a shard.

    Attributes:
        shard: its position.
        value: what the task returned.
        lost: the reason if the shard was given up because it lost :data:`LOSSES` workers; otherwise empty.
    """

    shard: int
    value: Any = None
    lost: str = ""


class Executor(ABC):
    """Runs tasks on shards. A context manager that ends its workers.

    Attributes:
        workers: shards that run at once.
        threads: processors of each worker; None for an equal share of the caller's.
        device: on which workers compute; None for the device that the caller uses.
    """

    workers: int = 1
    threads: int | None = None
    device: str | None = None

    @abstractmethod
    def map(
        self, task: Task, shards: Sequence[Any], report: Callable[[int, Any], None] = lambda shard, value: None
    ) -> Iterator[Outcome | None]:
        """Run a task on every shard; yield outcomes as they arrive, and None several times a second meanwhile.

        If the caller stops early, :meth:`stop` collects the results of running shards.

        Args:
            task: sent once, and again only if it does not equal one of the last few tasks.
            report: called with a shard's position and its latest progress.

        Raises:
            ConfigError: the task or a shard cannot be sent, or workers cannot be started.
            Exception: the error that the task raised on a shard.
        """

    def stop(self, seconds: float) -> list[Outcome]:
        """Interrupt all running shards, and return the outcomes that arrive within this time; end the other workers."""
        return []

    def close(self) -> None:  # noqa: B027  (an executor without workers has nothing to end)
        """End all workers. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class InProcess(Executor):
    """Runs one shard after another in this process. Nothing is pickled."""

    def map(
        self, task: Task, shards: Sequence[Any], report: Callable[[int, Any], None] = lambda shard, value: None
    ) -> Iterator[Outcome | None]:
        """See :meth:`Executor.map`."""
        for number, shard in enumerate(shards):
            yield Outcome(number, task(shard, partial(report, number)))


_current: ContextVar[Executor] = ContextVar("executor")


@contextmanager
def using(executor: Executor) -> Iterator[None]:
    """Inside, :func:`current` is this executor, which attacks use."""
    token = _current.set(executor)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Executor | None:
    """The executor in use; None outside :func:`using`."""
    return _current.get(None)


# --- messages ---


class Kind(Enum):
    """Kind of a worker's message."""

    READY = 1
    REPORT = 2
    RESULT = 3
    STOPPED = 4
    ERROR = 5
    LOST = 6


INTERRUPTED = "a worker was interrupted"


class Packed(NamedTuple):
    """A pickled task or shard, and its name in error messages."""

    called: str
    content: bytes


def pack(what: object, dumps: Callable[[Any], bytes]) -> Packed:
    """Pickle a task or a shard. Its attribute ``called`` names it in errors.

    Raises:
        ConfigError: it cannot be pickled.
    """
    called = str(getattr(what, "called", "task"))
    try:
        return Packed(called, dumps(what))
    except Exception as error:  # a __reduce__ method may raise anything
        raise ConfigError(
            f"The {called} cannot be sent to worker processes, since it cannot be pickled ({one_line(error)}); use "
            "jobs=1."
        ) from error


def unpack(packed: Packed) -> Any:
    """The object, on a worker.

    Raises:
        ConfigError: it cannot be unpickled there.
    """
    try:
        return pickle.loads(packed.content)
    except Exception as error:
        raise ConfigError(
            f"A worker process cannot unpickle the {packed.called} ({type(error).__name__}: {one_line(error)}). Its "
            "classes must be in modules that can be imported; or use jobs=1."
        ) from None


def message(kind: Kind, value: object = None) -> bytes:
    """A worker's message as bytes. Plain pickle copies tensors instead of sharing their memory."""
    return pickle.dumps((kind, value), protocol=pickle.HIGHEST_PROTOCOL)


def error_message(error: Exception) -> bytes:
    """The message for an error; if it cannot be pickled, a RuntimeError with its text."""
    if not isinstance(error, IsthmusError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        content = message(Kind.ERROR, error)
        pickle.loads(content)
    except Exception:
        content = message(Kind.ERROR, RuntimeError(f"{type(error).__name__} in a worker process: {error}"))
    return content


class TaskCache:
    """The last few tasks of a worker, by number."""

    def __init__(self) -> None:
        self._tasks: dict[int, Task] = {}

    def run(self, number: int, fetch: Callable[[], Packed], shard: Packed, report: Report) -> bytes:
        """Run a task on a shard; returns the message to send.

        Args:
            fetch: gives the task if it is not known here.
        """
        try:
            if number not in self._tasks:
                self._tasks[number] = unpack(fetch())
                if len(self._tasks) > KEPT:
                    del self._tasks[next(iter(self._tasks))]
            return message(Kind.RESULT, self._tasks[number](unpack(shard), report))
        except KeyboardInterrupt:
            return message(Kind.STOPPED, INTERRUPTED)
        except Exception as error:
            return error_message(error)


# --- the caller's side ---

W = TypeVar("W")
Received = tuple[W, Kind, Any]


class WorkerExecutor(Executor, Generic[W]):
    """Distributes shards over workers, and runs those of lost workers again.

    Subclasses start workers and communicate with them.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._starting: set[W] = set()
        self._idle: list[W] = []
        self._busy: dict[W, int] = {}
        self._tasks: dict[int, Task] = {}
        self._count = 0
        self._failed_starts = 0  # in a row

    @abstractmethod
    def _start(self) -> W:
        """Start a worker, which will send READY."""

    def _alive(self, worker: W) -> bool:
        """Whether an idle worker still exists. A shard sent to a lost one would use up one of its attempts."""
        return True

    @abstractmethod
    def _send(self, worker: W, number: int, task: Task, shard: Packed) -> None:
        """Let an idle worker run a task on a shard. Raises OSError if the worker is gone."""

    @abstractmethod
    def _pack(self, what: object) -> Packed:
        """See :func:`pack`."""

    @abstractmethod
    def _receive(self, workers: Sequence[W], seconds: float) -> Iterable[Received[W]]:
        """Messages of these workers. Waits at most this long for the first."""

    @abstractmethod
    def _interrupt(self, worker: W) -> None:
        """Interrupt the shard that a worker runs."""

    @abstractmethod
    def _end(self, workers: Sequence[W]) -> None:
        """End workers at once."""

    def map(
        self, task: Task, shards: Sequence[Any], report: Callable[[int, Any], None] = lambda shard, value: None
    ) -> Iterator[Outcome | None]:
        """See :meth:`Executor.map`."""
        self.stop(0.0)
        number = self._number(task)
        waiting, losses = deque(range(len(shards))), Counter[int]()
        while waiting or self._busy:
            self._start_missing(len(waiting))
            while waiting and self._idle:
                self._hand_out(self._idle.pop(), number, task, shards, waiting)
            for worker, kind, value in self._receive(self._all(), POLL):
                if kind is Kind.REPORT:
                    if worker in self._busy:
                        report(self._busy[worker], value)
                    continue
                shard = self._update(worker, kind, value)
                if kind is Kind.ERROR:
                    raise value
                if kind is Kind.RESULT and shard is not None:
                    yield Outcome(shard, value)
                elif shard is not None:
                    losses[shard] += 1
                    if losses[shard] == LOSSES:
                        yield Outcome(shard, lost=f"{value}, {LOSSES} times")
                    else:
                        waiting.appendleft(shard)
            yield None

    def _number(self, task: Task) -> int:
        for number, known in self._tasks.items():
            if known == task:
                return number
        self._count += 1
        self._tasks[self._count] = task
        if len(self._tasks) > KEPT:
            del self._tasks[next(iter(self._tasks))]
        return self._count

    def _all(self) -> list[W]:
        return [*self._starting, *self._idle, *self._busy]

    def _start_missing(self, wanted: int) -> None:
        wanted -= len(self._idle) + len(self._starting)
        for _ in range(min(wanted, self.workers - len(self._all()))):
            self._starting.add(self._start())

    def _hand_out(self, worker: W, number: int, task: Task, shards: Sequence[Any], waiting: deque[int]) -> None:
        if not self._alive(worker):
            self._end([worker])
            return
        packed = self._pack(shards[waiting[0]])
        self._busy[worker] = waiting.popleft()
        try:
            self._send(worker, number, task, packed)
        except OSError:  # it was lost while it was idle
            waiting.appendleft(self._busy.pop(worker))
            self._end([worker])

    def _update(self, worker: W, kind: Kind, value: Any) -> int | None:
        """Update a worker's state after a message; returns the shard that it no longer runs."""
        started = worker in self._starting
        self._starting.discard(worker)
        shard = self._busy.pop(worker, None)
        if worker in self._idle:
            self._idle.remove(worker)
        if kind is not Kind.LOST:
            self._failed_starts = 0
            self._idle.append(worker)
            return shard
        self._end([worker])
        if started:
            self._failed_starts += 1
            if self._failed_starts > LOSSES * self.workers:
                raise ConfigError(f"Workers exit as soon as they are started ({value}).")
        return shard

    def stop(self, seconds: float) -> list[Outcome]:
        """See :meth:`Executor.stop`."""
        found, until = [], time.monotonic() + seconds
        for worker in self._busy if seconds else ():
            self._interrupt(worker)
        while self._busy and time.monotonic() < until:
            for worker, kind, value in self._receive(self._all(), POLL):
                if kind is Kind.REPORT:
                    continue
                shard = self._update(worker, kind, value)
                if kind is Kind.RESULT and shard is not None:
                    found.append(Outcome(shard, value))
        busy, self._busy = list(self._busy), {}
        self._end(busy)
        return found

    def close(self) -> None:
        """See :meth:`Executor.close`."""
        workers = self._all()
        self._starting, self._idle, self._busy, self._tasks = set(), [], {}, {}
        self._end(workers)
