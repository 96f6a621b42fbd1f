"""Numbers in text: fractions in percent, few digits, intervals beside values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isthmus.core.types import Interval, Metric

NOT_MEASURED = "not measured"
NORMS = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1"}
STATUSES = {
    "measured": "measured",
    "pass": "pass",
    "warn": "warning",
    "fail": "fail",
    "skipped": "skipped",
    "error": "error",
}
"""Each :class:`isthmus.core.types.Status` in a word."""
DIFFERENCES = frozenset(
    ("accuracy_loss", "added_error", "difference", "gain", "generalisation_gap", "information_gap", "overconfidence")
)
"""Metrics in the unit "fraction" that are differences of two fractions: shown in percentage points."""
_NAMES = {
    "apgd": "APGD",
    "bpda": "BPDA",
    "ce": "CE",
    "cw": "C&W",
    "ddn": "DDN",
    "dlr": "DLR",
    "eot": "EOT",
    "fab": "FAB",
    "fgsm": "FGSM",
    "fmn": "FMN",
    "multitargeted": "MultiTargeted",
    "pgd": "PGD",
    "rays": "RayS",
    "square": "Square",
    "t": "T",
}
"""Attacks and losses as papers write them."""
_WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def parse_fraction(given: object) -> float:
    """A number, also from text such as "53%" or "0.53"; NaN if it is none."""
    number, percent, rest = given.strip().partition("%") if isinstance(given, str) else (given, "", "")
    try:
        return math.nan if rest or isinstance(given, bool) else float(number) / (100 if percent else 1)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def count(number: int, noun: str, plural: str | None = None) -> str:
    """``count(3, "classifier")`` is "three classifiers"; above twelve in digits."""
    word = _WORDS[number] if number < len(_WORDS) else f"{number:,}"
    return f"{word} {noun if number == 1 else plural or noun + 's'}"


def listed(items: Sequence[str], join: str = "and") -> str:
    """Items as a phrase: "", "a", "a and b", "a, b and c"."""
    return f"{', '.join(items[:-1])} {join} {items[-1]}" if len(items) > 1 else "".join(items)


def attack_title(label: str) -> str:
    """The label of an attack as a page shows it: "apgd-ce" as "APGD-CE", "eot/pgd" as "PGD (EOT)"."""
    purpose, _, attack = label.rpartition("/")
    title = "-".join(_NAMES.get(part, part) for part in attack.split("-"))
    return f"{title} ({purpose_title(purpose)})" if purpose else title


def purpose_title(name: str) -> str:
    """A diagnostic test or follow-up attack as a page shows it: "random_search" as "random search", "eot" as "EOT"."""
    words = {"baseline": "baseline attack", **_NAMES}
    return words.get(name, name.replace("_", " ").replace("/", ", "))


def percent(fraction: float | None) -> str:
    """A fraction to one decimal: 0.973 as "97.3%"."""
    return "an unknown fraction" if fraction is None else f"{100 * fraction:.1f}%"


def points(difference: float) -> str:
    """The size of a difference of fractions in percentage points: −0.031 as "3.1 points"."""
    return f"{100 * abs(difference):.1f} points"


def percent_of(fraction: float, n: int) -> str:
    """A fraction of ``n`` examples, to the decimals that n resolves: 58% of 100, 58.3% of 360, 58.33% of 5,000.

    Below 1% it has one decimal more, if that is at most two.
    """
    return _percent(fraction, _decimals_of(fraction, n))


def interval_of(interval: Interval, n: int) -> str:
    """The interval of a fraction of ``n`` examples, in percent: "48–67"."""
    return "–".join(_fixed(100 * end, _resolved(n)) for end in (interval.low, interval.high))


def points_of(difference: float, n: int) -> str:
    """The size of a difference of fractions of ``n`` examples: "8 points"."""
    size = _fixed(100 * abs(difference), _decimals_of(difference, n))
    return f"{size} point" if size == "1" else f"{size} points"


def _decimals_of(fraction: float, n: int) -> int:
    return min(_resolved(n) + (0 < abs(fraction) < 0.01), 2)


def _resolved(n: int) -> int:
    """Decimals of a percentage that distinguish k / n from (k + 1) / n, at most two."""
    return 0 if n <= 100 else 1 if n <= 1000 else 2


def interval(metric: Metric) -> str:
    """The interval of a fraction as " (95% interval 95.1% to 98.2%)"; "" if it has none."""
    found = metric.interval
    return f" ({found.level:.0%} interval {percent(found.low)} to {percent(found.high)})" if found else ""


def threat_title(text: str) -> str:
    """A threat for readers: "linf:0.1" as "ℓ∞ 0.1"."""
    norm, _, eps = text.partition(":")
    return f"{NORMS.get(norm, norm)} {eps}"


def corruption_title(name: str) -> str:
    """The name of a corruption for readers: "jpeg_compression" as "JPEG compression"."""
    return name.replace("_", " ").replace("jpeg", "JPEG")


def number(value: float) -> str:
    """A number with two or three significant digits: 1,234, 12.3, 0.045, 3.1e−05."""
    return _fixed(value, _decimals(value))


def digits(value: float, most: int = 6) -> str:
    """A number with up to this many significant digits, for data behind a figure: 0.1, 0.571031."""
    return f"{value:.{most}g}".replace("-", "−") if math.isfinite(value) else number(value)


def quantity(value: float, unit: str) -> str:
    """A number with its unit; the unit "fraction" is written in percent."""
    if unit == "fraction":
        return _percent(value, _percent_decimals(value))
    return f"{number(value)} {unit}".rstrip()


def value_text(metric: Metric, unit: bool = True) -> str:
    """A metric's value, with its unit unless a table's header already names it."""
    if metric.value is None:
        return NOT_MEASURED
    if metric.unit == "fraction":
        text = _percent(metric.value, _metric_decimals(metric))
        return text.replace("%", "\u00a0pp") if metric.name in DIFFERENCES else text
    text = _fixed(metric.value, _metric_decimals(metric))
    return f"{text} {metric.unit}" if unit and not math.isnan(metric.value) else text


def interval_text(metric: Metric, level: bool = False) -> str:
    """A metric's interval, to the same decimals as its value: "95.8–98.3"; with its level on request."""
    if metric.interval is None or metric.value is None:
        return ""
    interval, scale = metric.interval, 100 if metric.unit == "fraction" else 1
    if math.isnan(interval.low) or math.isnan(interval.high):
        return "unknown"
    low, high = (_fixed(scale * bound, _metric_decimals(metric)) for bound in (interval.low, interval.high))
    # a dash between two minus signs cannot be read
    text = f"{low} to {high}" if min(interval.low, interval.high) < 0 else f"{low}–{high}"
    return f"{level_text(interval)} {text}" if level else text


def level_text(interval: Interval) -> str:
    """The level of an interval in percent: "95%"."""
    return f"{100 * interval.level:g}%"


def in_words(metric: Metric) -> str:
    """A metric in running text: "97.2% (95% interval 95.0–98.5, n = 360)"."""
    inside = [f"{level_text(metric.interval)} interval {interval_text(metric)}"] if metric.interval else []
    inside += [size(metric.n)] if metric.n else [metric.note]  # a claimed number has no n
    return f"{value_text(metric)} ({', '.join(inside)})" if any(inside) else value_text(metric)


def size(n: int) -> str:
    """ "n = 360" with spaces that do not break."""
    return f"n\u00a0=\u00a0{n:,}"


def _metric_decimals(metric: Metric) -> int | None:
    """Decimals for a value and its interval: no more than the width of the interval calls for."""
    interval = metric.interval
    sizes = [abs(metric.value or 0.0), abs(interval.high - interval.low) / 2 if interval else 0.0]
    ends = [abs(interval.low), abs(interval.high)] if interval else []
    # finite ends count only if nothing better is finite
    finite = [size for size in sizes if math.isfinite(size)] or [end for end in ends if math.isfinite(end)]
    scale = max(finite, default=0.0)
    return _percent_decimals(scale) if metric.unit == "fraction" else _decimals(scale)


def _decimals(value: float) -> int | None:
    size = abs(value)
    if not math.isfinite(value) or 0 < size < 1e-4 or size >= 1e7:
        return None
    for limit, decimals in ((100, 0), (10, 1), (0.1, 2), (0.01, 3), (0.001, 4)):
        if size >= limit:
            return decimals
    return 5 if size else 2


def _percent(fraction: float, decimals: int | None) -> str:
    return _fixed(100 * fraction, decimals) + ("%" if math.isfinite(fraction) else "")


def _percent_decimals(fraction: float) -> int:
    return 2 if 0 < abs(fraction) < 0.01 else 1


def _fixed(value: float, decimals: int | None) -> str:
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if decimals is None:
        return f"{value:.1e}".replace("-", "−")
    text = f"{value:,.{decimals}f}"
    return text.replace("-", "−") if text.strip("-0.,") else text.strip("-")
