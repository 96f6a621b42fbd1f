"""ROC curves and a table for each out-distribution, and the distributions of the scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.display import Block, Figure, Headline, Mark, Section, Table
from isthmus.core.format import listed, number
from isthmus.core.types import CheckResult, Metric
from isthmus.metrics import DETECTION
from isthmus.report.sections import common
from isthmus.report.sections.common import MEAN, Results

_BINS = 24
# scores for the comparison of classifiers, with coordinates and titles
_COMPARED = ({"score": "entropy", "mode": MEAN, "title": "entropy"}, {"score": "rate", "title": "rate R"})
_BESIDE = ("max_probability", "max_logit")  # scores that are not drawn: much like entropy and energy
_ALONE = 4  # scores that are drawn of a single classifier
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
    shown = common.with_metrics(results)
    outs = {out["name"]: out["title"] for result in shown.values() for out in result.details["outs"]}
    blocks: list[Block] = []
    for out, title in outs.items():
        blocks += [*_curves(out, title, shown), _table(out, title, shown)]
    blocks += [figure for score in _COMPARED for figure in _distributions(score, outs, shown)]
    columns = {
        f"AUROC against {title}, by {score['title']}": common.column(shown, "auroc", **_at(score, out))
        for out, title in outs.items()
        for score in _COMPARED
    }
    return Section(
        "Detection",
        "Does it detect out-of-distribution images?",
        tuple(blocks),
        {title: found for title, found in columns.items() if found},
        {name: hardest for name, result in shown.items() if (hardest := _headline(result))},
    )


def _at(score: Score, out: str) -> dict[str, Any]:
    """Coordinates of a score's metrics on an out-distribution."""
    return {"data": out, **{key: score[key] for key in ("score", "mode") if key in score}}


def _headline(result: CheckResult) -> Headline | None:
    """AUROC of the best score on the out-distribution that is hardest to detect."""
    best = {}
    for out in result.details["outs"]:
        found = (
            (score["title"], result.metrics.get("auroc", **_at(score, out["name"])))
            for score in result.details["scores"]
        )
        areas = {title: area for title, area in found if area}
        if areas:
            score = max(areas, key=lambda title: areas[title].value or 0.0)
            best[f"{out['title']}, by {score}"] = areas[score]
    if not best:
        return None
    hardest = min(best, key=lambda title: best[title].value or 0.0)
    which = "of the best score" + (", hardest images" if len(best) > 1 else "")
    return Headline(best[hardest], f"AUROC {which}", note=hardest)


def _curves(out: str, title: str, shown: Results) -> list[Figure]:
    series, areas = [], {}
    for name, result in shown.items():
        for score, area in _drawn(result, out, alone=len(shown) == 1):
            line = f"{name} ({score['title']})"
            inside, outside = (common.known(result.arrays[f"{which}_{score['score']}"]) for which in ("in", out))
            style = "line" if score["score"] == "entropy" else "dashed"
            series.append(common.roc(line, inside, outside, style=style, group=name))
            areas[line] = area
    if not series:
        return []
    reading = (
        f"{common.extremes(areas, f'AUROC against {title}')}. In-distribution is positive: the upper left corner is "
        "perfect, the diagonal is chance."
    )
    if len(shown) == 1:
        reading += " Drawn are entropy and the best three of the other scores; the table has all."
    figure = Figure(
        f"ROC curves: {title}",
        reading,
        f"fraction of {title} accepted",
        "fraction of audited images accepted",
        tuple(series),
        (Mark("95% accepted", y=0.95),),
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
    )
    return [figure]


def _drawn(result: CheckResult, out: str, alone: bool) -> list[tuple[Score, Metric]]:
    """Scores of mean mode whose ROC curve is drawn: those of the comparison; of a single classifier entropy and the
    three best others."""
    found = [
        (score, area)
        for score in result.details["scores"]
        if (area := result.metrics.get("auroc", **_at(score, out))) and score.get("mode", MEAN) == MEAN
    ]
    if not alone:
        compared = [score["score"] for score in _COMPARED]
        return [(score, area) for score, area in found if score["score"] in compared]
    ranked = sorted(found, key=lambda each: (each[0]["score"] != "entropy", -(each[1].value or 0.0)))
    kept = [score["score"] for score, _ in ranked if score["score"] not in _BESIDE][:_ALONE]
    return [(score, area) for score, area in found if score["score"] in kept]


def _table(out: str, title: str, shown: Results) -> Table:
    attacked = bool(common.column(shown, "attack_success", data=out))
    rows: list[tuple[str | Metric | None, ...]] = []
    notes: dict[str, list[str]] = {}
    for name, result in shown.items():
        for facts in (facts for facts in result.details["outs"] if facts["name"] == out):
            if facts["notice"]:
                notes.setdefault(facts["notice"], []).append(name)
            success = [result.metrics.get("attack_success", data=out)] if attacked else []
            for score in result.details["scores"]:
                # their notes say which class is positive, and so do the columns
                found = [m and m.model_copy(update={"note": ""}) for m in _found(result, score, out)]
                rows.append((name, score["title"], *found, *success))
    reading = "Scores are larger for more out-of-distribution images. FPR: the fraction of the negative class that is "
    reading += "accepted when 95% of the positive class are; small is good. In: audited images are the positive class; "
    reading += "out: the others are. AUROC is the same for either."
    for notice, names in notes.items():
        reading += f" {notice}" if len(notes) == 1 else f" {listed(names)}: {notice}"
    columns = ("classifier", "score", *(_TITLES[metric] for metric in DETECTION), *["attack success"] * attacked)
    return Table(f"Detection of {title}", reading, columns, tuple(rows))


def _found(result: CheckResult, score: Score, out: str) -> list[Metric | None]:
    return [result.metrics.get(name, **_at(score, out)) for name in DETECTION]


def _distributions(score: Score, outs: Mapping[str, str], shown: Results) -> list[Figure]:
    """Histograms of a score: bars for the audited images, lines for out-distributions, a few in each figure."""
    names = list(outs)
    parts = [names[start : start + _LINES] for start in range(0, len(names), _LINES)]
    having = {name: result for name, result in shown.items() if _scores(result, "in", score).size}
    figures = []
    for place, part in enumerate(parts if having else [], 1):
        which = f" ({place} of {len(parts)})" if len(parts) > 1 else ""
        figures.append(_distribution(score, {out: outs[out] for out in part}, having, which))
    return figures


def _scores(result: CheckResult, images: str, score: Score) -> NDArray[np.float64]:
    return common.known(result.arrays.get(f"{images}_{score['score']}", _NONE))


def _distribution(score: Score, outs: Mapping[str, str], shown: Results, which: str) -> Figure:
    series, medians = [], []
    for name, result in shown.items():
        found = {title: _scores(result, out, score) for out, title in outs.items()}
        values = {"audited": _scores(result, "in", score)} | {of: own for of, own in found.items() if own.size}
        series += common.histograms(name, values, _edges(*values.values()))
        each = [f"{number(float(np.median(own)))} on {of} images" for of, own in values.items()]
        medians.append(f"{listed(each)} for {name}")
    reading = f"Medians: {'; '.join(medians)}. Bars: audited images; lines: others. "
    reading += "The outermost bins, drawn apart, hold all values beyond."
    title = score["title"]
    whole = f"{title[0].upper()}{title[1:]} of audited and other images{which}"
    return Figure(whole, reading, f"{title}, nats", "fraction of images", tuple(series))


def _edges(inside: NDArray[np.float64], *others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bins over the audited images' range and as much again on either side, if there are other images."""
    finite = inside[np.isfinite(inside)]
    low, high = np.quantile(finite, [0.005, 0.995]) if finite.size else (0.0, 0.0)
    room = (high - low) or 1.0
    everything = np.concatenate([finite, *others])
    start, stop = max(low - room, everything.min()), min(high + room, everything.max())
    return np.linspace(start, stop if stop > start else start + 1.0, _BINS + 1)
