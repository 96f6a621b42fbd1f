"""Reliability diagram, accuracy over the margin, and the measures of calibration."""

from __future__ import annotations

from isthmus.core.display import Figure, Section, Series, Table
from isthmus.core.format import listed, percent, points
from isthmus.core.types import CheckResult, Metric
from isthmus.metrics import Bin
from isthmus.report.sections.common import (
    MEAN,
    STOCHASTIC,
    Results,
    Row,
    bin_series,
    column,
    extreme,
    headlines,
    label,
    with_metrics,
)


def section(results: Results) -> Section:
    """The reliability diagram and accuracy over the margin in mean mode, tables, and the column "ECE"."""
    shown = with_metrics(results)
    blocks: tuple[Figure | Table, ...] = (_diagram(shown), _table(shown), _margins(shown)) if shown else ()
    scaled = {name: each for name, each in shown.items() if each.metrics.get("temperature", mode=MEAN)}
    if scaled:
        blocks += (_scaling(scaled),)
    sampled = column(shown, "ece", mode=STOCHASTIC)
    return Section(
        "Calibration",
        "Is its confidence calibrated?",
        blocks,
        {"ECE": column(shown, "ece", mode=MEAN)} | ({"ECE, stochastic": sampled} if sampled else {}),
        headlines(shown, "ece", "expected calibration error"),
    )


def _diagram(shown: Results) -> Figure:
    return Figure(
        "Reliability",
        _reading(shown),
        "mean confidence of the bin",
        "accuracy in the bin",
        _points(shown, "equal_width"),
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        identity=True,
    )


def _margins(shown: Results) -> Figure:
    """Accuracy over p₁ − p₂, as in figure 7 of the rate-distortion paper."""
    means = "; ".join(f"{name}: {percent(m.value)}" for name, m in column(shown, "margin", mode=MEAN).items())
    return Figure(
        "Accuracy over the prediction margin",
        f"The margin is the largest probability less the second largest. Its mean: {means}.",
        "mean margin of the bin",
        "accuracy in the bin",
        _points(shown, "margin"),
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
    )


def _points(shown: Results, kind: str) -> tuple[Series, ...]:
    binned = {name: result.details["bins"][MEAN][kind] for name, result in shown.items()}
    return tuple(bin_series(name, [Bin.model_validate(b) for b in bins]) for name, bins in binned.items())


def _reading(shown: Results) -> str:
    """Which classifiers are over- or underconfident, and by how much on average."""
    gaps = column(shown, "overconfidence", mode=MEAN)
    signed: dict[str, dict[str, Metric]] = {"overconfident": {}, "underconfident": {}}
    matched = []
    for name, gap in gaps.items():
        if gap.value is None or gap.interval is None or gap.interval.low <= 0 <= gap.interval.high:
            matched.append(name)
        else:
            signed["overconfident" if gap.value > 0 else "underconfident"][name] = gap
    sentences = []
    for side, found in signed.items():
        if found:
            most = extreme(found, side == "overconfident")
            size = points(found[most.names[0]].value or 0.0)
            verb = "is" if len(most.names) == 1 else "are"
            of = f", the most of {len(found)} that are" if most.others else ""
            sentences.append(f"{listed(most.names)} {verb} {side} by {size} on average{of}{most.caveat}.")
    if matched:
        verb = "is" if len(matched) == 1 else "are"
        sentences.append(f"{listed(matched)} {verb} not shown to be over- or underconfident.")
    return " ".join(sentences)


def _modes(result: CheckResult) -> list[str]:
    return list(result.details["bins"])


def _table(shown: Results) -> Table:
    names = ("ece", "ece_equal_mass", "ece_debiased", "overconfidence", "nll", "brier")
    rows: list[Row] = [
        (label(name, mode), *(result.metrics.get(metric, mode=mode) for metric in names))
        for name, result in shown.items()
        for mode in _modes(result)
    ]
    errors = column(shown, "ece", mode=MEAN)
    best = extreme(errors, largest=False)
    least = percent(errors[best.names[0]].value)
    if best.others:
        verb = "has" if len(best.names) == 1 else "have"
        reading = f"{listed(best.names)} {verb} the smallest expected calibration error, {least}"
    else:
        reading = f"The expected calibration error is {least}{' for each' if len(shown) > 1 else ''}"
    columns = ("classifier", "ECE", "ECE, equal mass", "ECE, debiased", "overconfidence", "NLL", "Brier")
    return Table("Measures of calibration", f"{reading}{best.caveat}.", columns, tuple(rows))


def _scaling(shown: Results) -> Table:
    rows: list[Row] = []
    for name, result in shown.items():
        for mode in _modes(result):
            found = result.metrics
            scaled = [found.one(m, mode=mode, scaling=when) for m in ("ece", "nll") for when in ("before", "after")]
            rows.append((label(name, mode), found.one("temperature", mode=mode), *scaled))
    return Table(
        "Temperature scaling",
        "All logits are divided by a temperature, fitted on other examples than those of this table. It changes no "
        "prediction; above 1 the classifier was overconfident.",
        ("classifier", "temperature", "ECE before", "ECE after", "NLL before", "NLL after"),
        tuple(rows),
    )
