"""Mean over draws and examples, both of which are samples; every draw evaluates the same examples."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from isthmus.core.types import Interval, Metric

METHOD = "t, over draws and examples"


def crossed_mean(
    values: ArrayLike, unit: str, level: float = 0.95, least: float = -math.inf, most: float = math.inf
) -> Metric:
    """Mean of a table draws × examples, with an interval for other draws and other examples.

    With random effects of rows, columns and cells, the variance of the mean is (MS_rows + MS_columns − MS_cells)/(D·n)
    in terms of the mean squares; degrees of freedom after Satterthwaite 1946. Either source of variance alone would be
    too narrow: a few draws may differ by more than examples explain, and all draws share their examples.

    Args:
        values: D draws × n examples.
        least, most: what the mean of a population cannot be below and above.

    Returns:
        ``n`` is the number of examples. Not measured without values; without an interval for fewer than two draws or
        two examples.

    Raises:
        ValueError: no table.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"a table of draws × examples; got the shape {table.shape}")
    draws, n = table.shape
    if not table.size:
        return Metric(value=None, unit=unit, n=0, note="no examples")
    value = float(table.mean())
    if draws < 2 or n < 2:
        return Metric(value=value, unit=unit, n=n, note="an interval needs two draws and two examples")
    rows, columns = table.mean(1), table.mean(0)
    between = n * rows.var(ddof=1), draws * columns.var(ddof=1)
    rest = table - rows[:, None] - columns + value
    within = float(np.square(rest).sum()) / ((draws - 1) * (n - 1))
    # the estimate of the variance may be negative; then use that of cells alone
    variance = max(between[0] + between[1] - within, within)
    parts = (between[0] ** 2 / (draws - 1), between[1] ** 2 / (n - 1), within**2 / ((draws - 1) * (n - 1)))
    freedom = max(variance**2 / sum(parts), 1.0) if variance else 1.0
    reach = float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(variance / (draws * n))
    low, high = (float(np.clip(bound, least, most)) for bound in (value - reach, value + reach))
    return Metric(value=value, unit=unit, n=n, interval=Interval(low=low, high=high, level=level, method=METHOD))
