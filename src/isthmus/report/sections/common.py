"""What sections share: columns and headlines, tables over classifiers and modes, sentences, series and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isthmus import metrics
from isthmus.core.display import Figure, Headline, Picture, Series, Table
from isthmus.core.format import listed, percent, points
from isthmus.core.types import CheckResult, Coordinate, Metric, Status
from isthmus.metrics import Bin

MEAN, STOCHASTIC = "mean", "stochastic"
_NAMED = 3  # classifiers in a sentence

Results = Mapping[str, CheckResult]
"""Results of one check by classifier name."""
Value = str | float | Metric | None
Row = tuple[Value, ...]
Find = Callable[[CheckResult, str], Metric | None]
"""A metric of a result in a mode, if it has it."""
Cells = Mapping[str, Callable[[CheckResult, str], Value]]
"""Columns of a table: their titles, and the cell for a result and a mode."""


def with_metrics(results: Results) -> dict[str, CheckResult]:
    """The results that hold numbers: not skipped and not ended by an error."""
    return {
        name: result
        for name, result in results.items()
        if result.status not in (Status.SKIPPED, Status.ERROR) and len(result.metrics)
    }


def measured(metric: str, **coords: Coordinate) -> Find:
    """A metric in a mode."""
    return lambda result, mode: result.metrics.get(metric, mode=mode, **coords)


def overall(metric: str, **coords: Coordinate) -> Find:
    """A metric that no mode belongs to."""
    return lambda result, _: result.metrics.get(metric, **coords)


def column(results: Results, metric: str, **coords: Coordinate) -> dict[str, Metric]:
    """One metric of every classifier that has it, by classifier name."""
    found = {name: result.metrics.get(metric, **coords) for name, result in results.items()}
    return {name: metric for name, metric in found.items() if metric is not None}


def columns(results: Results, title: str | Callable[[CheckResult], str], find: Find) -> dict[str, dict[str, Metric]]:
    """Columns of the comparison table, one for each mode; results with other titles get other columns."""
    found: dict[str, dict[str, Metric]] = {}
    for mode in (MEAN, STOCHASTIC):
        for name, result in results.items():
            if metric := find(result, mode):
                own = title if isinstance(title, str) else title(result)
                found.setdefault(own + ("" if mode == MEAN else f", {mode}"), {})[name] = metric
    return found


def status_mode(result: CheckResult) -> str:
    """The mode that a result's status is of."""
    return str(result.details.get("mode", MEAN))


def threat(result: CheckResult, **coords: Coordinate) -> dict[str, Coordinate]:
    """Coordinates of the largest ε that a result is about, with others."""
    eps = result.details["eps"]
    return {"norm": result.details["norm"], "eps": eps[-1] if isinstance(eps, list) else eps, **coords}


def headline(metric: Metric, title: str, word: str = "", note: str = "") -> Headline:
    """A number for the scorecard; the note names its mode unless that is the mean mode."""
    mode = str(metric.coords.get("mode", MEAN))
    return Headline(metric, title, word, ", ".join(filter(None, [note, "" if mode == MEAN else f"{mode} mode"])))


def headlines(results: Results, metric: str, title: str) -> dict[str, Headline]:
    """One metric of every classifier that has it, in the mode that its status is of."""
    found = {name: result.metrics.get(metric, mode=status_mode(result)) for name, result in results.items()}
    return {name: headline(metric, title) for name, metric in found.items() if metric is not None}


def label(name: str, mode: str) -> str:
    """A classifier in a mode: "vib" or "vib (stochastic)"."""
    return name if mode == MEAN else f"{name} ({mode})"


def in_mode(array: str, mode: str) -> str:
    """Name of a stored array in a mode."""
    return array if mode == MEAN else f"{mode}_{array}"


def modes(result: CheckResult) -> list[str]:
    """The modes that a result has metrics of."""
    found = dict.fromkeys(str(metric.coords["mode"]) for metric in result.metrics if "mode" in metric.coords)
    return list(found) or [MEAN]


def table(title: str, reading: str, results: Results, cells: Cells) -> Table:
    """A row for each classifier and mode; columns that no classifier has are left out."""
    places = [(name, result, mode) for name, result in results.items() for mode in modes(result)]
    shown = {heading: [cell(result, mode) for _, result, mode in places] for heading, cell in cells.items()}
    shown = {heading: values for heading, values in shown.items() if any(value is not None for value in values)}
    names = [label(name, mode) for name, _, mode in places]
    return Table(title, reading, ("classifier", *shown), tuple(zip(names, *shown.values(), strict=True)))


class Extreme(NamedTuple):
    """The classifiers with the largest or smallest value, compared to three decimals as it is shown.

    Attributes:
        names: all that have it; ``others``: the rest.
        alike: those of the rest whose intervals overlap.
    """

    names: list[str]
    others: list[str]
    alike: list[str]

    @property
    def group(self) -> list[str]:
        """All that are not shown to differ from the extreme one, itself included."""
        return [*self.names, *self.alike]


def extreme(found: Mapping[str, Metric], largest: bool = True) -> Extreme:
    """The classifiers with the largest (or smallest) value, and those that are not shown to differ."""
    values = {name: round(metric.value or 0.0, 3) for name, metric in found.items()}
    value = max(values.values()) if largest else min(values.values())
    names = [name for name in values if values[name] == value]
    others = [name for name in values if name not in names]
    alike = [name for name in others if any(overlap(found[name], found[first]) for first in names)]
    return Extreme(names, others, alike)


def overlap(a: Metric, b: Metric) -> bool:
    """Whether two intervals have a value in common; true if one is missing."""
    if a.interval is None or b.interval is None:
        return True
    return a.interval.low <= b.interval.high and b.interval.low <= a.interval.high


Text = Callable[[Metric], str]
_LARGEST = ("largest", "highest", "widest")


def superlative(found: Mapping[str, Metric], what: str, word: str = "largest", text: Text | None = None) -> str:
    """A clause on the classifiers with the largest (smallest, …) value; none is named that is not shown to differ."""
    most = extreme(found, word in _LARGEST)
    if not most.others:
        return f"The {what} is {_value(found[most.names[0]], text)}{' for each' if len(found) > 1 else ''}"
    if len(most.group) == len(found):
        return f"The {what} is {_span(found, list(found), text)}"
    return _group(found, most, f"the {word} {what}", text)


def extremes(
    found: Mapping[str, Metric], what: str, words: tuple[str, str] = ("largest", "smallest"), text: Text | None = None
) -> str:
    """A clause that names every classifier: those with the largest value, those with the smallest, and the others.

    Classifiers that are not shown to differ from the largest (or smallest) are named with it.
    """
    most, least = extreme(found), extreme(found, largest=False)
    if not most.others or len(most.group) == len(found):
        return superlative(found, what, words[0], text)
    first = _group(found, most, f"the {words[0]} {what}", text)
    if set(most.group) & set(least.group):
        rest = [name for name in found if name not in most.group]
        return f"{first}, and {listed(rest)} {'has' if len(rest) == 1 else 'have'} less, {_span(found, rest, text)}"
    middle = [name for name in found if name not in {*most.group, *least.group}]
    between = f"; {listed(middle)} {'lies' if len(middle) == 1 else 'lie'} between" if middle else ""
    return f"{first}, and {_group(found, least, f'the {words[1]}', text)}{between}"


def _group(found: Mapping[str, Metric], most: Extreme, what: str, text: Text | None) -> str:
    """ "a has the largest ECE, 90%", or "a, b and c have the largest ECE, 85% to 90% (overlapping intervals)"."""
    names = [name for name in found if name in most.group]
    if not most.alike:
        return f"{listed(names)} {'has' if len(names) == 1 else 'have'} {what}, {_value(found[names[0]], text)}"
    return f"{listed(names)} have {what}, {_span(found, names, text)}"


def _span(found: Mapping[str, Metric], names: Sequence[str], text: Text | None) -> str:
    """The values of classifiers that are not shown to differ: "85.0% to 90.0% (overlapping intervals)"."""
    ranked = sorted(names, key=lambda name: found[name].value or 0.0)
    if len(names) == 1:
        return _value(found[names[0]], text)
    low, high = (_value(found[name], text).partition(" (")[0] for name in (ranked[0], ranked[-1]))
    alike = all(overlap(found[one], found[other]) for one in names for other in names)
    return f"{low} to {high}{' (overlapping intervals)' if alike else ''}"


def _value(metric: Metric, text: Text | None) -> str:
    return percent(metric.value) if text is None else text(metric)


def ranking(values: Mapping[str, float], largest: bool = True) -> str:
    """Fractions, from the largest (or smallest): "3.0% for a and 2.1% for b"; those of many as a range."""
    ranked = sorted(values, key=lambda name: values[name], reverse=largest)
    texts = [percent(values[name]) for name in ranked]
    if len(set(texts)) == 1:
        return texts[0] + (" for each" if len(ranked) > 1 else "")
    if len(ranked) > _NAMED:
        return f"from {percent(min(values.values()))} to {percent(max(values.values()))}"
    return listed([f"{text} for {name}" for text, name in zip(texts, ranked, strict=True)])


def over_accuracy(found: Mapping[str, Metric], what: str) -> str:
    """On average, for which classifiers confidence (or another fraction) exceeds accuracy, and by how much."""
    groups: dict[str, list[str]] = {"exceeds accuracy for": [], "falls short of accuracy for": []}
    exceeds, short = groups.values()
    unknown = groups.setdefault("is not shown to differ from accuracy for", [])
    for name, gap in found.items():
        if gap.value is None:
            continue
        if gap.interval is None or gap.interval.low <= 0 <= gap.interval.high:
            unknown.append(name)
        else:
            (exceeds if gap.value > 0 else short).append(f"{name} (by {points(gap.value)})")
    parts = [f"{verb} {listed(names)}" for verb, names in groups.items() if names]
    return f"On average, {what} {'; it '.join(parts)}." if parts else "No image has finite logits."


def curve(name: str, x: Sequence[float], found: Sequence[Metric], **options: Any) -> Series:
    """Metrics as a series with intervals; a metric without an interval gets one of width 0."""
    ends = [(m.interval.low, m.interval.high) if m.interval else (m.value or 0.0,) * 2 for m in found]
    return Series(
        name,
        x=tuple(x),
        y=tuple(m.value or 0.0 for m in found),
        low=tuple(low for low, _ in ends),
        high=tuple(high for _, high in ends),
        **options,
    )


def bins_of(stored: Iterable[Mapping[str, Any]]) -> list[Bin]:
    """Bins out of a result's details."""
    return [Bin.model_validate(each) for each in stored]


def bin_series(name: str, bins: Sequence[Bin]) -> Series:
    """Accuracy over confidence, or margin, of the bins that are not empty, with their intervals."""
    full = [(each.confidence, each.accuracy, each.interval) for each in bins if each.n]
    return Series(
        name,
        x=tuple(confidence for confidence, _, _ in full if confidence is not None),
        y=tuple(accuracy for _, accuracy, _ in full if accuracy is not None),
        low=tuple(ends.low for _, _, ends in full if ends),
        high=tuple(ends.high for _, _, ends in full if ends),
        style="points",  # bins of a few examples scatter; a line through them would suggest a trend
        group=name,
        counts=tuple(each.n for each in bins if each.n),
    )


def reliability(title: str, reading: str, binned: Mapping[str, Sequence[Bin]], of: str, diagonal: bool) -> Figure:
    """Accuracy over the mean confidence, or margin, of each bin, by classifier."""
    series = tuple(bin_series(name, bins) for name, bins in binned.items())
    unit = (0.0, 1.0)
    return Figure(
        title, reading, f"mean {of} of the bin", "accuracy in the bin", series, (), unit, unit, identity=diagonal
    )


def share_series(name: str, bins: Sequence[Bin]) -> Series:
    """The fraction of all examples in each bin, as bars."""
    total = sum(each.n for each in bins) or 1
    centres = tuple((each.low + each.high) / 2 for each in bins)
    return Series(name, centres, tuple(each.n / total for each in bins), style="bars", group=name)


def roc(name: str, positive: NDArray[np.float64], negative: NDArray[np.float64], **options: Any) -> Series:
    """The ROC curve of a score that is smaller for positives, at most 40 points."""
    x, y = (tuple(rates.tolist()) for rates in metrics.roc_curve(positive, negative, most=40))
    return Series(name, x, y, **options)


def histograms(
    name: str, values: Mapping[str, NDArray[np.float64]], edges: NDArray[np.float64], overflow: bool = True
) -> list[Series]:
    """The distributions of a classifier's values: bars for the first, lines for the others.

    Args:
        overflow: whether values lie beyond the edges; the outermost bins hold them.
    """
    centres = tuple(((edges[1:] + edges[:-1]) / 2).tolist())
    series: list[Series] = []
    for of, own in values.items():
        counts, _ = np.histogram(np.clip(own, edges[0], edges[-1]), edges)
        shares = tuple((counts / max(own.size, 1)).tolist())
        series.append(
            Series(
                f"{name} ({of})", centres, shares, style="dashed" if series else "bars", group=name, overflow=overflow
            )
        )
    return series


def known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values that are not NaN."""
    return values[~np.isnan(values)]


def picture(image: NDArray[Any], caption: str) -> Picture:
    """A float image c×h×w in [0, 1], or bytes h×w×c, of any number of channels: if it is not 1 or 3, the first.

    Floats are clipped; NaN is black.
    """
    if image.dtype != np.uint8:
        image = np.rint(255 * np.nan_to_num(image).clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)
    return Picture(image if image.shape[-1] in (1, 3) else image[..., :1], caption)


def enlarged(change: NDArray[Any], smallest: float = 1e-6) -> tuple[NDArray[np.float32], float]:
    """A difference of images around grey, enlarged until its extreme is black or white; and the factor.

    Args:
        smallest: a difference of less than this is not enlarged further.
    """
    pattern = np.nan_to_num(change).astype(np.float32)
    times = 0.5 / max(float(np.abs(pattern).max()), smallest)
    return (0.5 + times * pattern).clip(0, 1), times


_DARKER, _SAME, _BRIGHTER = (np.array(colour, float) for colour in ((33, 102, 172), (247, 247, 247), (178, 24, 43)))


def difference(change: NDArray[Any], largest: float) -> NDArray[np.uint8]:
    """A signed difference h×w×c as bytes h×w×3: blue is darker, red brighter; ±``largest`` has the full colour.

    Channels are averaged.
    """
    signed = np.nan_to_num(change).mean(axis=-1, keepdims=True) / largest
    ends = np.where(signed < 0, _DARKER, _BRIGHTER)
    mixed = _SAME + np.abs(signed).clip(0, 1) * (ends - _SAME)
    return np.asarray(np.rint(mixed), dtype=np.uint8)
