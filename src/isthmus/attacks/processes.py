"""A crew of processes on this machine: the parent's side, and the worker's.

What goes over the pipes is bytes that each side pickles itself. Nothing lies in shared memory, so a killed process
leaves nothing behind, and the caller's model stays where it was.
"""

from __future__ import annotations

import pickle
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.attacks import scouting
from isthmus.attacks.evaluation import work
from isthmus.attacks.judging import Judge
from isthmus.attacks.ledger import Ledger
from isthmus.attacks.oracle import Oracle
from isthmus.attacks.setting import Setting
from isthmus.attacks.undisturbed import device_of, undisturbed
from isthmus.attacks.workers import Order, Part
from isthmus.errors import ConfigError, IsthmusError, ModelError

INTERVAL = 1.0
"""Seconds between two reports of a worker."""


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
        kit = _packed(_Kit(model, seed, bf16, _settings(max(1, torch.get_num_threads() // jobs))), "model")
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
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"The {called} cannot be sent to worker processes, since it cannot be pickled ({reason}); use jobs=1."
        ) from error


# --- the worker's side ---


@dataclass(frozen=True)
class _Kit:
    """What a worker gets once."""

    model: nn.Module
    seed: int
    bf16: bool
    settings: dict[str, Any]


def _settings(threads: int) -> dict[str, Any]:
    """How the parent computes, as far as that is set from within Python."""
    return {
        "threads": threads,
        "dtype": torch.get_default_dtype(),
        "precision": torch.get_float32_matmul_precision(),
        "tf32": torch.backends.cudnn.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def _apply(settings: dict[str, Any]) -> None:
    torch.set_num_threads(settings["threads"])
    torch.set_default_dtype(settings["dtype"])
    torch.set_float32_matmul_precision(settings["precision"])
    torch.backends.cudnn.allow_tf32 = settings["tf32"]
    torch.use_deterministic_algorithms(settings["deterministic"])


def _serve(pipe: Connection, number: int) -> None:
    """A worker's life: the kit, then orders, until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        kit: _Kit = _unpacked(pipe.recv_bytes(), "model")
        _apply(kit.settings)
        with undisturbed(kit.model, device_of(kit.model, torch.empty(0)), kit.seed + number):
            worker = _Worker(kit)
            while True:
                for part in worker.parts(_unpacked(pipe.recv_bytes(), "attack")):
                    pipe.send_bytes(pickle.dumps(part, protocol=pickle.HIGHEST_PROTOCOL))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone, or done with us
    except Exception as error:
        _report(pipe, error)


def _unpacked(content: bytes, called: str) -> Any:
    try:
        return pickle.loads(content)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"A worker process cannot unpickle the {called} ({type(error).__name__}: {reason}). What it is made of "
            "must be in modules that can be imported; or use jobs=1."
        ) from None


def _report(pipe: Connection, error: Exception) -> None:
    """Send an error home; one that cannot be sent, as text."""
    if not isinstance(error, IsthmusError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:
        content = pickle.dumps(RuntimeError(f"{type(error).__name__} in a worker process: {error}"))
    pipe.send_bytes(content)


class _Worker:
    """Works on orders, one after another, with the same eyes on the model."""

    def __init__(self, kit: _Kit) -> None:
        self._kit = kit
        self._oracle: Oracle | None = None
        self._told = (0, 0)

    def parts(self, order: Order) -> Iterator[Part]:
        """Work on an order; what changed, every second or so and at the end."""
        setting, rows = self._setting(order), torch.arange(len(order.ledger))
        seen, last = _marks(order.ledger), time.monotonic()
        for _ in work(setting, order.attack, rows, order.stage):
            if time.monotonic() - last > INTERVAL:
                yield self._part(setting, seen, over=False)
                seen, last = _marks(order.ledger), time.monotonic()
        yield self._part(setting, seen, over=True)

    def _setting(self, order: Order) -> Setting:
        device = device_of(self._kit.model, torch.empty(0))
        if self._oracle is None:
            probe = order.examples.images[: scouting.PROBE].to(device)
            self._oracle = scouting.oracle(self._kit.model, self._kit.bf16, probe)
        self._oracle.random = order.random
        return Setting(Judge(self._oracle, order.threat), order.examples, order.ledger, device, order.size)

    def _part(self, setting: Setting, seen: Tensor, over: bool) -> Part:
        oracle, told = setting.oracle, self._told
        rows = (_marks(setting.ledger) != seen).any(0).nonzero().squeeze(1)
        self._told = oracle.forward_passes, oracle.backward_passes
        return Part(rows, setting.ledger.take(rows), self._told[0] - told[0], self._told[1] - told[1], over)


def _marks(ledger: Ledger) -> Tensor:
    """Columns of which one at least changes whenever anything about an example does: no pass is left uncounted."""
    return torch.stack([ledger.forwards, ledger.backwards, ledger.tries, ledger.done, ledger.stage])
