"""One colour and one marker for each classifier on the page, distinguishable without colour too.

Figures are drawn in sentinel colours, which :mod:`isthmus.report.svg` turns into CSS variables, so that one
drawing serves light and dark. The colours themselves are in ``templates/style.css``; a test holds their
contrast against both backgrounds and their distance for red- and green-blind eyes.
"""

from __future__ import annotations

from collections.abc import Iterable

from isthmus.core.drawing import Look

COLOURS = 6
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")

INK, MUTED, GRID, PAPER = "#fe0101", "#fe0102", "#fe0103", "#fe0104"
_SERIES = tuple(f"#fe02{index:02x}" for index in range(COLOURS))
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    **{sentinel: f"var(--series-{index})" for index, sentinel in enumerate(_SERIES)},
}
"""Sentinel colour -> its CSS variable."""


NEUTRAL = Look(MUTED, "")
"""For what belongs to no classifier, and for the others in a small multiple."""


class Looks:
    """Gives every group a look, in order of first mention; 24 groups differ in colour or marker."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._looks: dict[str, Look] = {}
        for name in names:
            self.of(name)

    def owner(self, label: str) -> str | None:
        """The group that a label names: "ceb" of "ceb" and of "ceb (stochastic)"; None if there is none."""
        named = [name for name in self._looks if label == name or label.startswith((f"{name} (", f"{name}, "))]
        return max(named, key=len, default=None)

    def member(self, label: str) -> str:
        """The CSS class of the group that a label names: "m0", "m1", …; "" if there is none."""
        name = self.owner(label)
        return "" if name is None else f"m{list(self._looks).index(name)}"

    def of(self, name: str) -> Look:
        """The look of a group; a new group takes the next one."""
        index = len(self._looks)
        return self._looks.setdefault(name, Look(_SERIES[index % COLOURS], MARKERS[index % len(MARKERS)]))
