"""What ``progress=True`` shows: one line on stderr with the running part and how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable

Shown = Callable[[str, float, float], None]


def line() -> Shown:
    """Write ``part: 42%`` over the line before, whenever that changes, and end the line at 100%."""
    last = ""

    def show(part: str, done: float, total: float) -> None:
        nonlocal last
        text = f"{part}: {100 * done / total if total else 0:.0f}%"
        if text != last:
            over = " " * max(len(last) - len(text), 0)
            sys.stderr.write(f"\r{text}{over}" + ("\n" if done >= total else ""))
            sys.stderr.flush()
            last = text

    return show
