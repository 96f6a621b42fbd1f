"""ROC curves and a table for each out-distribution, and the distributions of the scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus import metrics
from isthmus.core.display import Figure, Headline, Mark, Section, Series, Table
from isthmus.core.format import listed, percent
from isthmus.core.types import CheckResult, Metric
from isthmus.metrics import DETECTION
from isthmus.report.sections.common import MEAN, Results, Row, column, extreme, with_metrics

_CURVE = 40  # points of a drawn curve
_BINS = 24
# scores for the comparison of classifiers, with coordinates and titles
_COMPARED = ({"score": "entropy", "mode": MEAN, "title": "entropy"}, {"score": "rate", "title": "rate R"})
_ALONE = ("entropy", "energy", "rate", "residual")  # scores that are drawn of a single classifier
_LINES = 3  # out-distributions in one drawing of score distributions
_NONE = np.empty(0)
_TITLES = {
    "fpr95_in": "FPR at 95% TPR, in positive",
    "fpr95_out": "FPR at 95% TPR, out positive",
    "auroc": "AUROC",
    "aupr_in": "AUPR In",
    "aupr_out": "AUPR Out",
}
Score = Mapping[str, str]
"""Coordinates of a score, and its title."""


def section(results: Results) -> Section:
    """ROC curves and a table for each out-distribution; entropy and rate; AUROC by these for comparison."""
    shown = with_metrics(results)
    blocks: list[Figure | Table] = []
    for out, title in _outs(shown).items():
        blocks += [*_curves(out, title, shown), _table(out, title, shown)]
    blocks += [figure for score in _COMPARED for figure in _distributions(score, shown)]
    question = "Does it detect out-of-distribution images?"
    return Section("Detection", question, tuple(blocks), _columns(shown), _headlines(shown))


def _at(score: Score, out: str) -> dict[str, Any]:
    """Coordinates of a score's metrics on an out-distribution."""
    return {"data": out, **{key: score[key] for key in ("score", "mode") if key in score}}


def _headlines(shown: Results) -> dict[str, Headline]:
    """AUROC of the best score on the out-distribution that is hardest to detect."""
    found = {}
    for name, result in shown.items():
        best = {}
        for out in result.details["outs"]:
            areas = {
                score["title"]: area
                for score in result.details["scores"]
                if (area := result.metrics.get("auroc", **_at(score, out["name"])))
            }
            if areas:
                score = max(areas, key=lambda score: areas[score].value or 0.0)
                best[f"{out['title']}, by {score}"] = areas[score]
        if best:
            hardest = min(best, key=lambda title: best[title].value or 0.0)
            which = "of the best score" + (", hardest images" if len(best) > 1 else "")
            found[name] = Headline(best[hardest], f"AUROC {which}", note=hardest)
    return found


def _outs(shown: Results) -> dict[str, str]:
    """Titles of all out-distributions, in the order of the first classifier that has each."""
    return {out["name"]: out["title"] for result in shown.values() for out in result.details["outs"]}


def _columns(shown: Results) -> dict[str, dict[str, Metric]]:
    columns = {}
    for out, title in _outs(shown).items():
        for score in _COMPARED:
            if found := column(shown, "auroc", **_at(score, out)):
                columns[f"AUROC against {title}, by {score['title']}"] = found
    return columns


def _drawn(result: CheckResult, single: bool) -> list[Score]:
    """Scores of the mean mode and of codes whose curves are drawn, few enough to distinguish."""
    chosen = _ALONE if single else [score["score"] for score in _COMPARED]
    scores: list[Score] = result.details["scores"]
    return [score for score in scores if score.get("mode", MEAN) == MEAN and score["score"] in chosen]


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[~np.isnan(values)]


def _curves(out: str, title: str, shown: Results) -> list[Figure]:
    series, areas = [], {}
    for name, result in shown.items():
        for score in _drawn(result, len(shown) == 1):
            area = result.metrics.get("auroc", **_at(score, out))
            if area is None:
                continue
            inside, outside = (_known(result.arrays[f"{which}_{score['score']}"]) for which in ("in", out))
            x, y = (tuple(rates.tolist()) for rates in metrics.roc_curve(inside, outside, most=_CURVE))
            line = f"{name} ({score['title']})"
            series.append(Series(line, x, y, style="line" if score["score"] == "entropy" else "dashed", group=name))
            areas[line] = area
    if not series:
        return []
    figure = Figure(
        f"ROC curves: {title}",
        f"{_reading(title, areas)}. In-distribution is positive: the upper left corner is perfect, the diagonal is "
        "chance.",
        f"fraction of {title} accepted",
        "fraction of audited images accepted",
        tuple(series),
        (Mark("95% accepted", y=0.95),),
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
    )
    return [figure]


def _reading(title: str, areas: Mapping[str, Metric]) -> str:
    best, worst = extreme(areas), extreme(areas, largest=False)
    high, low = (percent(areas[each.names[0]].value) for each in (best, worst))
    if not best.others:
        return f"The AUROC against {title} is {high}{' for each' if len(areas) > 1 else ''}"
    return (
        f"The largest AUROC against {title} is {high}, of {listed(best.names)}{best.caveat}; the smallest is {low}, of "
        f"{listed(worst.names)}"
    )


def _table(out: str, title: str, shown: Results) -> Table:
    attacked = any(result.metrics.get("attack_success", data=out) for result in shown.values())
    rows: list[Row] = []
    notes: dict[str, list[str]] = {}
    for name, result in shown.items():
        facts = next((facts for facts in result.details["outs"] if facts["name"] == out), None)
        if facts is None:
            continue
        if facts["notice"]:
            notes.setdefault(facts["notice"], []).append(name)
        success = [result.metrics.get("attack_success", data=out)] if attacked else []
        for score in result.details["scores"]:
            found = [result.metrics.get(metric, **_at(score, out)) for metric in DETECTION]
            rows.append((name, score["title"], *found, *success))
    reading = "Scores are larger for more out-of-distribution images. FPR: the fraction of the negative class that is "
    reading += "accepted when 95% of the positive class are; small is good."
    for notice, names in notes.items():
        reading += f" {notice}" if len(notes) == 1 else f" {listed(names)}: {notice}"
    columns = ("classifier", "score", *(_TITLES[metric] for metric in DETECTION), *["attack success"] * attacked)
    return Table(f"Detection of {title}", reading, columns, tuple(rows))


def _distributions(score: Score, shown: Results) -> list[Figure]:
    """Histograms of a score: bars for the audited images, lines for out-distributions, a few in each figure."""
    outs = list(_outs(shown).items())
    parts = [dict(outs[start : start + _LINES]) for start in range(0, len(outs), _LINES)]
    array = f"in_{score['score']}"
    of = {name: result for name, result in shown.items() if _known(result.arrays.get(array, _NONE)).size}
    titles = [f" ({number} of {len(parts)})" if len(parts) > 1 else "" for number in range(1, len(parts) + 1)]
    return [_distribution(score, part, of, which) for part, which in zip(parts, titles, strict=True)] if of else []


def _distribution(score: Score, outs: Mapping[str, str], shown: Results, which: str) -> Figure:
    series, medians = [], []
    key, title = score["score"], score["title"]
    for name, result in shown.items():
        inside = _known(result.arrays[f"in_{key}"])
        found = {of: _known(result.arrays.get(f"{out}_{key}", _NONE)) for out, of in outs.items()}
        others = {of: values for of, values in found.items() if values.size}
        edges = _edges(inside, list(others.values()))
        centres = tuple(((edges[1:] + edges[:-1]) / 2).tolist())
        series.append(Series(f"{name} (audited)", centres, _fractions(inside, edges), style="bars", group=name))
        series += [
            Series(f"{name} ({of})", centres, _fractions(values, edges), style="dashed", group=name)
            for of, values in others.items()
        ]
        each = [f"{np.median(values):.3g} on {of}" for of, values in others.items()]
        medians.append(f"{name} has a median of {listed([f'{np.median(inside):.3g} on audited images', *each])}")
    reading = f"{'; '.join(medians[:_LINES])}. Bars: audited images; lines: others. "
    reading += "The outermost bins hold all values beyond."
    whole = f"{title[0].upper()}{title[1:]} of audited and other images{which}"
    return Figure(whole, reading, f"{title}, nats", "fraction of images", tuple(series))


def _edges(inside: NDArray[np.float64], others: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Bins over the audited images' range and as much again on either side, if there are other images."""
    finite = inside[np.isfinite(inside)]
    low, high = np.quantile(finite, [0.005, 0.995]) if finite.size else (0.0, 0.0)
    room = (high - low) or 1.0
    everything = np.concatenate([finite, *others])
    start, stop = max(low - room, everything.min()), min(high + room, everything.max())
    return np.linspace(start, stop if stop > start else start + 1.0, _BINS + 1)


def _fractions(values: NDArray[np.float64], edges: NDArray[np.float64]) -> tuple[float, ...]:
    clipped = np.clip(values, edges[0], edges[-1])
    counts, _ = np.histogram(clipped, edges)
    return tuple((counts / max(values.size, 1)).tolist())
