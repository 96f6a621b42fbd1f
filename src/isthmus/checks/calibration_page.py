"""How the page shows calibration, from stored results, without torch."""

from __future__ import annotations

from collections.abc import Mapping

from isthmus.checks.views import bin_series, column, extreme, headlines, in_mode, listed, measured, percent, points
from isthmus.core.types import CheckResult, Figure, Metric, Section, Series, Table
from isthmus.metrics import Bin


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
    sampled = column(shown, "stochastic_ece")
    return Section(
        "Calibration",
        "Does the classifier's confidence match its accuracy?",
        blocks,
        {"ECE": column(shown, "ece")} | ({"ECE, stochastic": sampled} if sampled else {}),
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
    signed: dict[str, list[str]] = {"overconfident": [], "underconfident": []}
    matched = []
    for name, result in shown.items():
        gap = result.metrics["overconfidence"]
        if gap.value is None or gap.interval is None or gap.interval.low <= 0 <= gap.interval.high:
            matched.append(name)
        else:
            side = "overconfident" if gap.value > 0 else "underconfident"
            signed[side].append(name)
    sentences = []
    for side, found in signed.items():
        if found:
            most = extreme({name: shown[name].metrics["overconfidence"] for name in found}, side == "overconfident")
            size = points(shown[most.names[0]].metrics["overconfidence"].value or 0.0)
            verb = "is" if len(most.names) == 1 else "are"
            of = f", the most of {len(found)} that are" if most.others else ""
            sentences.append(f"{listed(most.names)} {verb} {side} by {size} on average{of}{most.caveat}.")
    if matched:
        verb = "is" if len(matched) == 1 else "are"
        sentences.append(f"{listed(matched)} {verb} not shown to be over- or underconfident.")
    return " ".join(sentences)


def _table(shown: Mapping[str, CheckResult]) -> Table:
    names = ("ece", "ece_equal_mass", "ece_debiased", "overconfidence", "nll", "brier")
    rows: list[tuple[str | float | Metric | None, ...]] = []
    for classifier, result in shown.items():
        for mode in result.details["bins"]:
            label = classifier if mode == "mean" else f"{classifier} ({mode})"
            rows.append((label, *(result.metrics.get(in_mode(name, mode)) for name in names)))
    errors = column(shown, "ece")
    best = extreme(errors, largest=False)
    least = errors[best.names[0]]
    if best.others:
        verb = "has" if len(best.names) == 1 else "have"
        reading = f"{listed(best.names)} {verb} the smallest expected calibration error, {percent(least.value)}"
    else:
        reading = f"The expected calibration error is {percent(least.value)}{' for each' if len(shown) > 1 else ''}"
    reading += f"{best.caveat}."
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
