"""What objectives on a hierarchy Z_L ← … ← Z_1 ← X share: one knob for all levels, and the sum of their terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.objectives.terms import TradeOff


class LevelTradeOff(TradeOff):
    """ρ for every level.

    Attributes:
        offsets: what is added to ρ at each level, lowest first: level i weighs ReX with e^-(ρ + offset_i). None gives
            all levels the same ρ.
    """

    offsets: tuple[float, ...] | None = None

    def at_level(self, level: int) -> dict[str, Any]:
        """Options of the objective at a level, counted from 0."""
        return {"rho": self.rho + self._offset(level), "kl": self.kl, "normalize": self.normalize}

    def rho_at_level(self, level: int, rho: float | None) -> float | None:
        """A schedule's ρ at a level; None stays None."""
        return None if rho is None else rho + self._offset(level)

    def _offset(self, level: int) -> float:
        return 0.0 if self.offsets is None else self.offsets[level]


def over_levels(codes: Codes, of_level: Callable[[int, Codes], Terms]) -> Terms:
    """Σ_i of the levels' totals. The highest level decides; the lowest is where information comes in.

    See :class:`isthmus.core.types.Terms` for what stands where.
    """
    levels = tuple(of_level(number, level) for number, level in enumerate(codes.levels))
    total = sum((level.total for level in levels[1:]), start=levels[0].total)
    return replace(
        levels[0],
        total=total,
        ce=levels[-1].ce,
        accuracy=levels[-1].accuracy,
        i_yz_lower=levels[-1].i_yz_lower,
        consistency_gap=levels[-1].consistency_gap,
        levels=levels,
    )
