"""A crew of processes on this machine: starting them, and talking with them over pipes.

What goes over the pipes is bytes that each side pickles itself. Nothing lies in shared memory, so a killed process
leaves nothing behind, and the caller's model stays where it was.
"""

from __future__ import annotations

import pickle
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import nn

from isthmus.attacks.engine.worker_task import Kit, Server, apply, packed_error, settings
from isthmus.attacks.engine.workers import Order, Part
from isthmus.core.errors import ConfigError, IsthmusError, ModelError, one_line
from isthmus.core.preserve_state import device_of, preserve_state


class Processes:
    """A crew of processes, freshly started: forked copies would inherit the locks of threads they lack, and no GPU.

    Args:
        model: sent to each; on a GPU they share it.
        seed: of their global generators, for models that draw noise of their own.
        jobs: how many.

    Raises:
        ConfigError: the model cannot be pickled, or no process can be started.
    """

    def __init__(self, model: nn.Module, seed: int, jobs: int, bf16: bool) -> None:
        kit = _packed(Kit(model, seed, bf16, settings(max(1, torch.get_num_threads() // jobs))), "model")
        self._workers: list[tuple[BaseProcess, Connection]] = []
        self._working: dict[int, bool] = {}  # orders that are not over, and whether anything came of them yet
        try:
            with _interrupts_blocked():
                for number in range(jobs):
                    self._workers.append(_started(number))
            for number in range(jobs):
                self._send(number, kit)
        except BaseException:
            self.close()
            raise

    def send(self, orders: Sequence[Order]) -> None:
        """See :class:`Crew`."""
        packed = [_packed(order, f"attack {order.attack.label!r}") for order in orders]
        for number, each in enumerate(packed):
            self._working[number] = False
            self._send(number, each)

    def _send(self, number: int, content: bytes) -> None:
        try:
            self._workers[number][1].send_bytes(content)
        except OSError:  # it is gone; what it said before that is worth more than that it is
            raise self._said_last(number) from None

    def _said_last(self, number: int) -> IsthmusError | Exception:
        try:
            last = pickle.loads(self._workers[number][1].recv_bytes())
        except (EOFError, OSError):
            return self._gone(number)
        return last if isinstance(last, Exception) else self._gone(number)

    def gather(self, seconds: float) -> list[tuple[int, Part]]:
        """See :class:`Crew`."""
        of = {self._workers[number][1]: number for number in self._working}
        found = []
        for ready in connection.wait(list(of), seconds):
            assert isinstance(ready, Connection)
            number = of[ready]
            try:
                said = pickle.loads(ready.recv_bytes())
            except (EOFError, OSError):
                raise self._gone(number) from None
            if isinstance(said, Exception):
                raise said
            self._working[number] = True
            if said.over:
                del self._working[number]
            found.append((number, said))
        return found

    def _gone(self, number: int) -> IsthmusError:
        process = self._workers[number][0]
        process.join(5)
        code = process.exitcode
        if code is not None and code < 0:
            return ModelError(
                f"A worker process was killed by signal {-code} ({signal.Signals(-code).name}), perhaps for lack of "
                f"memory; {len(self._workers)} worked at once. Fewer jobs need less."
            )
        return ConfigError(
            f"A worker process ended by itself (exit code {code}); its own words are above. In a script, the call "
            'belongs under if __name__ == "__main__":, since workers import the script; jobs=1 does without workers.'
        )

    def close(self) -> None:
        """See :class:`Crew`."""
        for process, pipe in self._workers:
            process.terminate()
            pipe.close()
        for process, _ in self._workers:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        self._workers, self._working = [], {}


def _started(number: int) -> tuple[BaseProcess, Connection]:
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, number), name=f"isthmus-{number}", daemon=True)
    try:
        process.start()
    except (OSError, AssertionError) as error:  # no memory; or this is itself such a process
        here.close()
        raise ConfigError(f"Cannot start worker processes ({error}); jobs=1 does without them.") from None
    finally:
        there.close()
    return process, here


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Children inherit the mask, so that Ctrl-C never reaches them; here it arrives a moment later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # starting with the first process, it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _packed(what: object, called: str) -> bytes:
    try:
        return pickle.dumps(what, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # somebody else's __reduce__ may raise anything
        reason = one_line(error)
        raise ConfigError(
            f"The {called} cannot be sent to worker processes, since it cannot be pickled ({reason}); use jobs=1."
        ) from error


# --- in a worker ---


def _serve(pipe: Connection, number: int) -> None:
    """A worker's life: the kit, then orders, until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        kit: Kit = _unpacked(pipe.recv_bytes(), "model")
        apply(kit.settings)
        with preserve_state(kit.model, device_of(kit.model, torch.empty(0)), kit.seed + number):
            worker = Server(kit)
            while True:
                for part in worker.parts(_unpacked(pipe.recv_bytes(), "attack")):
                    pipe.send_bytes(pickle.dumps(part, protocol=pickle.HIGHEST_PROTOCOL))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone, or done with us
    except Exception as error:
        pipe.send_bytes(packed_error(error))


def _unpacked(content: bytes, called: str) -> Any:
    try:
        return pickle.loads(content)
    except Exception as error:
        reason = one_line(error)
        raise ConfigError(
            f"A worker process cannot unpickle the {called} ({type(error).__name__}: {reason}). What it is made of "
            "must be in modules that can be imported; or use jobs=1."
        ) from None
