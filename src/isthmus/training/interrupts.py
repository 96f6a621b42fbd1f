"""Ctrl-C during training: the first one stops after the current step, when a checkpoint can be written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STOP = threading.Event()


class Interrupt:
    """Whether training should stop."""

    def __init__(self) -> None:
        self.signalled = False

    @property
    def requested(self) -> bool:
        """By Ctrl-C or :func:`request_stop`."""
        return self.signalled or _STOP.is_set()


def request_stop() -> None:
    """Stop all training of this process after the current step, now and in future.

    For a worker that trains in another thread, which receives no signals.
    """
    _STOP.set()


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Turn the first SIGINT into a flag; a second one interrupts at once.

    A signal within an optimiser's step would leave weights that have moved and a counter that has not. Outside the main
    thread signals cannot be caught, and none arrive.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = signal.getsignal(signal.SIGINT)

    def note(_signal: int, _frame: FrameType | None) -> None:
        interrupt.signalled = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
