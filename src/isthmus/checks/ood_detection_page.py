"""How the page shows detection: ROC curves and a table for each out-distribution, and how the scores are spread."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from isthmus import metrics
from isthmus.checks.ood_scores import SCORES
from isthmus.checks.views import STOCHASTIC, extreme, listed, measured, percent
from isthmus.core.types import CheckResult, Figure, Headline, Mark, Metric, Section, Series, Table
from isthmus.metrics import DETECTION

_CURVE = 40  # points of a drawn curve
_BINS = 24
_COMPARED = ("entropy", "rate")  # the scores that classifiers are compared by
_ALONE = ("entropy", "energy", "rate", "residual")  # those that are drawn of a single classifier
_LINES = 3  # out-distributions in one drawing of spreads
_NONE = np.empty(0)
_TITLES = {
    "fpr95_in": "FPR at 95% TPR, in positive",
    "fpr95_out": "FPR at 95% TPR, out positive",
    "auroc": "AUROC",
    "aupr_in": "AUPR In",
    "aupr_out": "AUPR Out",
}


def section(results: Mapping[str, CheckResult]) -> Section:
    """ROC curves and a table for each out-distribution; spreads of entropy and rate; AUROC by these for comparison."""
    shown = measured(results)
    blocks: list[Figure | Table] = []
    for out, said in _outs(shown).items():
        blocks += [*_curves(out, said, shown), _table(out, said, shown)]
    blocks += [figure for score in _COMPARED for figure in _spreads(score, shown)]
    question = "Does the classifier notice images that it was not made for?"
    return Section("Detection", question, tuple(blocks), _columns(shown), _headlines(shown))


def _headlines(shown: Mapping[str, CheckResult]) -> dict[str, Headline]:
    """By the best of its scores on each out-distribution, how well a classifier tells the one that it tells worst."""
    found = {}
    for name, result in shown.items():
        best = {}
        for out in result.details["outs"]:
            areas = {score: _metric(result, out["name"], score, "auroc") for score in result.details["scores"]}
            known = {score: area for score, area in areas.items() if area is not None}
            if known:
                score = max(known, key=lambda score: known[score].value or 0.0)
                best[f"{out['said']}, by {spoken(score)}"] = known[score]
        if best:
            hardest = min(best, key=lambda said: best[said].value or 0.0)
            which = "of the best score" + (", hardest images" if len(best) > 1 else "")
            found[name] = Headline(best[hardest], f"AUROC {which}", note=hardest)
    return found


def spoken(score: str) -> str:
    """A score as a reader wants it: "stochastic_entropy" as "entropy, stochastic"."""
    plain = score.removeprefix(f"{STOCHASTIC}_")
    return SCORES[plain] if plain == score else f"{SCORES[plain]}, {STOCHASTIC}"


def _outs(shown: Mapping[str, CheckResult]) -> dict[str, str]:
    """Names of all out-distributions and how to speak of them, in the order of the first classifier that has each."""
    return {out["name"]: out["said"] for result in shown.values() for out in result.details["outs"]}


def _metric(result: CheckResult, out: str, score: str, metric: str) -> Metric | None:
    plain = score.removeprefix(f"{STOCHASTIC}_")
    prefix = "" if plain == score else f"{STOCHASTIC}_"
    return result.metrics.get(f"{prefix}{out}_{plain}_{metric}")


def _columns(shown: Mapping[str, CheckResult]) -> dict[str, dict[str, Metric]]:
    columns = {}
    for out, said in _outs(shown).items():
        for score in _COMPARED:
            found = {name: _metric(result, out, score, "auroc") for name, result in shown.items()}
            known = {name: metric for name, metric in found.items() if metric is not None}
            if known:
                columns[f"AUROC against {said}, by {SCORES[score]}"] = known
    return columns


def _drawn(result: CheckResult, single: bool) -> list[str]:
    """Scores whose curves are drawn, as many as can be told apart."""
    chosen = _ALONE if single else _COMPARED
    return [score for score in result.details["scores"] if score in chosen]


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[~np.isnan(values)]


def _curves(out: str, said: str, shown: Mapping[str, CheckResult]) -> list[Figure]:
    series, areas = [], {}
    for name, result in shown.items():
        for score in _drawn(result, len(shown) == 1):
            area = _metric(result, out, score, "auroc")
            if area is None:
                continue
            inside, outside = (_known(result.arrays[f"{which}_{score}"]) for which in ("in", out))
            x, y = (tuple(rates.tolist()) for rates in metrics.roc_curve(inside, outside, most=_CURVE))
            label = f"{name} ({SCORES[score]})"
            series.append(Series(label, x, y, style="line" if score == "entropy" else "dashed", group=name))
            areas[label] = area
    if not series:
        return []
    best, worst = extreme(areas), extreme(areas, largest=False)
    high, low = (percent(areas[each.names[0]].value) for each in (best, worst))
    reading = f"The AUROC against {said} is {high}{' for each' if len(areas) > 1 else ''}"
    if best.others:
        reading = f"The largest AUROC against {said} is {high}, of {listed(best.names)}{best.caveat}; the smallest is "
        reading += f"{low}, of {listed(worst.names)}"
    figure = Figure(
        f"ROC curves: {said}",
        f"{reading}. In-distribution is positive: the upper left corner is perfect, the diagonal is chance.",
        f"share of {said} that pass",
        "audited images that pass",
        tuple(series),
        (Mark("95% pass", y=0.95),),
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
    )
    return [figure]


def _table(out: str, said: str, shown: Mapping[str, CheckResult]) -> Table:
    attacked = any(f"{out}_attack_success" in result.metrics for result in shown.values())
    rows: list[tuple[str | float | Metric | None, ...]] = []
    notes: dict[str, list[str]] = {}
    for name, result in shown.items():
        facts = next((facts for facts in result.details["outs"] if facts["name"] == out), None)
        if facts is None:
            continue
        if facts["notice"]:
            notes.setdefault(facts["notice"], []).append(name)
        success = [result.metrics.get(f"{out}_attack_success")] if attacked else []
        for score in result.details["scores"]:
            found = [_metric(result, out, score, metric) for metric in DETECTION]
            rows.append((name, spoken(score), *found, *success))
    reading = "Scores are larger for what is more out-of-distribution. FPR: the share of the other class that passes "
    reading += "for the positive one where 95% of the positive one do; small is good."
    for notice, names in notes.items():
        reading += f" {notice}" if len(notes) == 1 else f" {listed(names)}: {notice}"
    columns = ("classifier", "score", *(_TITLES[metric] for metric in DETECTION), *["attack success"] * attacked)
    return Table(f"Detection of {said}", reading, columns, tuple(rows))


def _spreads(score: str, shown: Mapping[str, CheckResult]) -> list[Figure]:
    """Histograms of a score: bars for the audited images and a line for each out-distribution, a few to a figure."""
    outs = list(_outs(shown).items())
    parts = [dict(outs[start : start + _LINES]) for start in range(0, len(outs), _LINES)]
    of = {name: result for name, result in shown.items() if _known(result.arrays.get(f"in_{score}", _NONE)).size}
    titles = [f" ({number} of {len(parts)})" if len(parts) > 1 else "" for number in range(1, len(parts) + 1)]
    return [_spread(score, part, of, which) for part, which in zip(parts, titles, strict=True)] if of else []


def _spread(score: str, outs: Mapping[str, str], shown: Mapping[str, CheckResult], which: str) -> Figure:
    series, medians = [], []
    for name, result in shown.items():
        inside = _known(result.arrays[f"in_{score}"])
        found = {said: _known(result.arrays.get(f"{out}_{score}", _NONE)) for out, said in outs.items()}
        others = {said: values for said, values in found.items() if values.size}
        edges = _edges(inside, list(others.values()))
        centres = tuple(((edges[1:] + edges[:-1]) / 2).tolist())
        series.append(Series(f"{name} (audited)", centres, _shares(inside, edges), style="bars", group=name))
        series += [
            Series(f"{name} ({said})", centres, _shares(values, edges), style="dashed", group=name)
            for said, values in others.items()
        ]
        each = [f"{np.median(values):.3g} on {said}" for said, values in others.items()]
        medians.append(f"{name} has a median of {listed([f'{np.median(inside):.3g} on audited images', *each])}")
    reading = f"{'; '.join(medians[:_LINES])}. Bars: audited images; lines: others. "
    reading += "The outermost bins hold all beyond."
    title = f"{SCORES[score][0].upper()}{SCORES[score][1:]} of audited and other images{which}"
    return Figure(title, reading, f"{SCORES[score]}, nats", "share of images", tuple(series))


def _edges(inside: NDArray[np.float64], others: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Bins over the audited images' range and as much again on either side, where there are other images."""
    finite = inside[np.isfinite(inside)]
    low, high = np.quantile(finite, [0.005, 0.995]) if finite.size else (0.0, 0.0)
    room = (high - low) or 1.0
    everything = np.concatenate([finite, *others])
    start, stop = max(low - room, everything.min()), min(high + room, everything.max())
    return np.linspace(start, stop if stop > start else start + 1.0, _BINS + 1)


def _shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> tuple[float, ...]:
    clipped = np.clip(values, edges[0], edges[-1])
    counts, _ = np.histogram(clipped, edges)
    return tuple((counts / max(values.size, 1)).tolist())
