"""Worker processes on this machine: an executor that communicates with its workers over pipes.

Workers are started afresh (``spawn``): forked processes would inherit locks of threads that they do not have, and could
not use a GPU. A terminal's Ctrl-C reaches the caller only. When the caller dies, its workers stop and end themselves.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from isthmus.core.errors import ConfigError
from isthmus.core.execution import (
    INTERRUPTED,
    KEPT,
    Kind,
    Packed,
    Received,
    Report,
    Task,
    TaskCache,
    WorkerExecutor,
    message,
    pack,
)

SAVING_SECONDS = 90.0
"""Seconds that a task has to save its work after its caller has died."""


class Worker:
    """A process, the pipe to it, and the numbers of the tasks that it keeps."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self.pipe, there = context.Pipe()
        self.process: BaseProcess = context.Process(target=serve, args=(there,), name="isthmus-worker")
        self.ready = False
        self.tasks: list[int] = []
        try:
            with _interrupts_blocked():
                self.process.start()
        except (OSError, AssertionError) as error:  # no memory, or this process is daemonic
            self.pipe.close()
            raise ConfigError(f"Cannot start worker processes ({error}); use jobs=1.") from None
        finally:
            there.close()

    def reason(self) -> str:
        """Why it ended."""
        self.process.join(5)
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"a worker process was killed by signal {-code} ({name}), perhaps for lack of memory"
        return f"a worker process exited with code {code}; see its output above"


class ProcessPool(WorkerExecutor[Worker]):
    """Worker processes on this machine, started when there are shards.

    Args:
        workers: how many at most. They share the caller's processors, and a GPU.
    """

    def _start(self) -> Worker:
        return Worker()

    def _pack(self, what: object) -> Packed:
        return pack(what, partial(pickle.dumps, protocol=pickle.HIGHEST_PROTOCOL))

    def _send(self, worker: Worker, number: int, task: Task, shard: Packed) -> None:
        packed = None
        if number not in worker.tasks:
            packed = self._pack(task)
            worker.tasks = [*worker.tasks, number][-KEPT:]
        content = pickle.dumps((number, packed, shard), protocol=pickle.HIGHEST_PROTOCOL)
        with _closed_on_interrupt(worker.pipe):
            worker.pipe.send_bytes(content)

    def _receive(self, workers: Sequence[Worker], seconds: float) -> Iterator[Received[Worker]]:
        for worker in [worker for worker in workers if worker.pipe.closed]:
            yield worker, Kind.LOST, "the caller was interrupted"
        by_pipe = {worker.pipe: worker for worker in workers if not worker.pipe.closed}
        for pipe in connection.wait(list(by_pipe), seconds):
            assert isinstance(pipe, Connection)
            worker = by_pipe[pipe]
            try:
                with _closed_on_interrupt(pipe):
                    content = pipe.recv_bytes()
            except (EOFError, OSError):
                yield worker, *self._gone(worker)
                continue
            worker.ready = True
            yield worker, *pickle.loads(content)

    def _gone(self, worker: Worker) -> tuple[Kind, object]:
        reason = worker.reason()
        if worker.ready or (worker.process.exitcode or 0) < 0:
            return Kind.LOST, reason
        return Kind.ERROR, ConfigError(
            f"{reason[0].upper()}{reason[1:]}. In a script, put the call under "
            'if __name__ == "__main__":, since workers import the script; or use jobs=1.'
        )

    def _interrupt(self, worker: Worker) -> None:
        if worker.process.pid is not None and worker.process.is_alive():
            os.kill(worker.process.pid, signal.SIGINT)

    def _end(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            worker.pipe.close()
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.process.close()


@contextmanager
def _closed_on_interrupt(pipe: Connection) -> Iterator[None]:
    """Close a pipe if Ctrl-C interrupts a message: later messages could not be read."""
    try:
        yield
    except KeyboardInterrupt:
        pipe.close()
        raise


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Inside, processes start with SIGINT blocked, since Ctrl-C must not reach them before they are set up."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # started with the first process, it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in a worker ---


def serve(pipe: Connection) -> None:
    """Run shards until the caller closes the pipe."""
    _set_up_signals()
    tasks = TaskCache()
    with suppress(EOFError, OSError):
        pipe.send_bytes(message(Kind.READY))
        while True:
            number, packed, shard = pickle.loads(pipe.recv_bytes())
            pipe.send_bytes(_run(tasks, number, packed, shard, partial(_report, pipe)))


def _run(tasks: TaskCache, number: int, packed: Packed, shard: Packed, report: Report) -> bytes:
    """Run a shard, which SIGINT interrupts; between shards the signal is ignored."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return tasks.run(number, lambda: packed, shard, report)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:  # the signal came after the shard ended
        return message(Kind.STOPPED, INTERRUPTED)


def _report(pipe: Connection, value: object) -> None:
    with suppress(OSError):  # the caller has ended; SIGINT follows
        pipe.send_bytes(message(Kind.REPORT, value))


def _set_up_signals() -> None:
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # a terminal sends Ctrl-C to a process group
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_caller, daemon=True).start()


def _end_with_caller() -> None:
    """When the caller has died, interrupt the shard, and end this process if that takes too long."""
    caller = parent_process()
    assert caller is not None
    connection.wait([caller.sentinel])
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(SAVING_SECONDS)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
