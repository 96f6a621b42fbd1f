"""How the page shows calibration, from stored results, without torch."""

from __future__ import annotations

from collections.abc import Mapping

from isthmus.checks.views import bin_series, column, headlines, in_mode, listed, measured, percent, points
from isthmus.metrics import Bin
from isthmus.types import CheckResult, Figure, Metric, Section, Series, Table


def section(results: Mapping[str, CheckResult]) -> Section:
    """The reliability diagram and accuracy over the margin in mean mode, tables, and the column "ECE"."""
    shown = measured(results)
    blocks: tuple[Figure | Table, ...] = (_diagram(shown), _table(shown)) if shown else ()
    with_margins = {name: each for name, each in shown.items() if "margin" in each.details["bins"]["mean"]}
    if with_margins:  # results of an earlier version have none
        blocks += (_margins(with_margins),)
    scaled = {name: each for name, each in shown.items() if "temperature" in each.metrics}
    if scaled:
        blocks += (_scaling(scaled),)
    return Section(
        "Calibration",
        "Does the classifier's confidence match its accuracy?",
        blocks,
        {"ECE": column(shown, "ece")},
        headlines(shown, "ece", "expected calibration error"),
    )


def _diagram(shown: Mapping[str, CheckResult]) -> Figure:
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


def _margins(shown: Mapping[str, CheckResult]) -> Figure:
    """Accuracy over p₁ − p₂, as figure 7 of the rate-distortion paper has it."""
    said = "; ".join(f"{name}: {percent(result.metrics['margin'].value)}" for name, result in shown.items())
    return Figure(
        "Accuracy over the prediction margin",
        f"The margin is the largest probability less the second largest. Its mean: {said}.",
        "mean margin of the bin",
        "accuracy in the bin",
        _points(shown, "margin"),
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
    )


def _points(shown: Mapping[str, CheckResult], kind: str) -> tuple[Series, ...]:
    binned = {name: result.details["bins"]["mean"][kind] for name, result in shown.items()}
    return tuple(bin_series(name, [Bin.model_validate(b) for b in bins]) for name, bins in binned.items())


def _reading(shown: Mapping[str, CheckResult]) -> str:
    """Who is overconfident, who underconfident, by how much on average, and for whom chance explains it."""
    signed: dict[str, list[tuple[float, str]]] = {"overconfident": [], "underconfident": []}
    matched = []
    for name, result in shown.items():
        gap = result.metrics["overconfidence"]
        if gap.value is None or gap.interval is None or gap.interval.low <= 0 <= gap.interval.high:
            matched.append(name)
        else:
            side = "overconfident" if gap.value > 0 else "underconfident"
            signed[side].append((abs(gap.value), name))
    sentences = []
    for side, found in signed.items():
        if found:
            size, name = max(found)
            most = f", the most of {len(found)} that are" if len(found) > 1 else ""
            sentences.append(f"{name} is {side} by {points(size)} on average{most}.")
    if matched:
        verb = "is" if len(matched) == 1 else "are"
        sentences.append(f"{listed(matched)} {verb} as often right as confident, within chance.")
    return " ".join(sentences)


def _table(shown: Mapping[str, CheckResult]) -> Table:
    names = ("ece", "ece_equal_mass", "ece_debiased", "overconfidence", "nll", "brier")
    rows: list[tuple[str | float | Metric | None, ...]] = []
    for classifier, result in shown.items():
        for mode in result.details["bins"]:
            label = classifier if mode == "mean" else f"{classifier} ({mode})"
            rows.append((label, *(result.metrics.get(in_mode(name, mode)) for name in names)))
    best = min(shown, key=lambda name: shown[name].metrics["ece"].value or 0.0)
    reading = f"{best} has the smallest expected calibration error, {percent(shown[best].metrics['ece'].value)}."
    columns = ("classifier", "ECE", "ECE, equal mass", "ECE, debiased", "overconfidence", "NLL", "Brier")
    return Table("Measures of calibration", reading, columns, tuple(rows))


def _scaling(shown: Mapping[str, CheckResult]) -> Table:
    rows: list[tuple[str | float | Metric | None, ...]] = []
    for classifier, result in shown.items():
        for mode in result.details["bins"]:
            label = classifier if mode == "mean" else f"{classifier} ({mode})"
            names = ("temperature", "ece_before", "ece_after", "nll_before", "nll_after")
            rows.append((label, *(result.metrics[in_mode(name, mode)] for name in names)))
    return Table(
        "With one temperature",
        "All logits are divided by one number, fitted on examples that are not judged here. It changes no prediction; "
        "above 1 the classifier was overconfident.",
        ("classifier", "temperature", "ECE before", "ECE after", "NLL before", "NLL after"),
        tuple(rows),
    )
