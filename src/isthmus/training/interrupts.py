"""Ctrl-C between two steps: the first one waits for a place where stopping loses nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ASKED = threading.Event()


class Interrupt:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.signalled = False

    @property
    def asked(self) -> bool:
        """By Ctrl-C, or through :func:`ask`."""
        return self.signalled or _ASKED.is_set()


def ask() -> None:
    """Have all training of this process stop where nothing is lost, now and from now on.

    For a worker whose training runs in another thread, where no signal arrives.
    """
    _ASKED.set()


@contextmanager
def deferred() -> Iterator[Interrupt]:
    """Turn the first SIGINT into a flag to look at; the second one interrupts at once, as always.

    A signal in the middle of an optimiser's step would leave weights that have moved and a count that has not.
    Outside the main thread signals cannot be caught, and none arrive.
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
