"""The trade-off parameter ρ between compression and prediction.

Papers weight the information terms by β on the rate, β on the relevance, or γ. All are one number (fact of
Fischer 2020, eqs. 15-18, and Fischer & Alemi 2020, eqs. 6-7); this file is the only place that converts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from isthmus.core.errors import ConfigError, shown

TRADE_OFF_NAMES = ("rho", "rate_weight", "residual_weight", "relevance_weight", "elimination_weight")
"""Options of objectives that set the trade-off; only one of them can be given."""

# e^-100, the start of the papers' schedules, is a float32 denormal; 0 times an overflowing rate would be NaN.
NEGLIGIBLE_WEIGHT = 1e-30


@dataclass(frozen=True)
class Rho:
    """The trade-off ρ. ρ → ∞ removes the bottleneck; ρ = 0 is the minimum necessary information (MNI) point.

    With the classification cross-entropy at weight 1, CEB weights the residual information by e^-ρ and VIB weights
    the rate by 1 / (1 + e^ρ).
    """

    value: float

    def __post_init__(self) -> None:
        if not isinstance(self.value, int | float):
            raise ConfigError(f"rho must be a number or inf; got {shown(self.value)}.")
        if math.isnan(self.value):
            raise ValueError("rho must be a number or inf, got nan")

    @classmethod
    def from_rate_weight(cls, weight: float) -> Rho:
        """From VIB's β in ``ce + β·rate`` (0 < β < 1): ρ = ln(1/β − 1)."""
        if not 0.0 < weight < 1.0:
            raise ValueError(f"a rate weight must lie strictly between 0 and 1, got {weight}")
        return cls(math.log1p(-weight) - math.log(weight))

    @classmethod
    def from_residual_weight(cls, weight: float) -> Rho:
        """From CEB's weight in ``ce + weight·residual`` (weight > 0): ρ = −ln weight."""
        if not weight > 0.0:
            raise ValueError(f"a residual weight must be positive, got {weight}")
        return cls(-math.log(weight))

    @classmethod
    def from_relevance_weight(cls, weight: float) -> Rho:
        """From β_IB in ``I(X;Z) − β_IB·I(Y;Z)`` (β_IB > 1): ρ = ln(β_IB − 1)."""
        if not weight > 1.0:
            raise ValueError(f"a relevance weight must exceed 1, got {weight}")
        return cls(math.log(weight - 1.0))

    @property
    def rate_weight(self) -> float:
        """VIB's weight on the rate: σ(−ρ) = 1/(1 + e^ρ), in [0, 1]; 0 where negligible."""
        small = math.exp(-abs(self.value))
        return _drop_negligible(small / (1.0 + small) if self.value > 0 else 1.0 / (1.0 + small))

    @property
    def residual_weight(self) -> float:
        """CEB's weight on the residual information: e^-ρ; 0 where negligible."""
        return _drop_negligible(math.exp(min(-self.value, 700.0)))

    @property
    def relevance_weight(self) -> float:
        """β_IB = 1 + e^ρ, the weight on I(Y;Z) when I(X;Z) has weight 1."""
        return 1.0 + math.exp(min(self.value, 700.0))


def as_number(rho: float | Rho | None) -> float | None:
    """ρ as a number, also from :class:`Rho`.

    Raises:
        ConfigError: it is neither a number nor a :class:`Rho`.
    """
    if rho is None or isinstance(rho, Rho):
        return None if rho is None else rho.value
    try:
        return float(rho)
    except (TypeError, ValueError):
        raise ConfigError(f"rho is a number or isthmus.Rho; got {rho!r}.") from None


def _drop_negligible(weight: float) -> float:
    return weight if weight >= NEGLIGIBLE_WEIGHT else 0.0
