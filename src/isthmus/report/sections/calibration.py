"""Reliability diagram, accuracy over the margin, selective classification, and the measures of calibration."""

from __future__ import annotations

from collections.abc import Mapping

from isthmus.core.display import Figure, Section, Series, Table
from isthmus.core.format import listed, number, percent
from isthmus.core.types import CheckResult, Metric
from isthmus.report.sections import common
from isthmus.report.sections.common import MEAN, Results

_MEASURES = {
    "ECE": common.measured("ece"),
    "ECE, equal mass": common.measured("ece_equal_mass"),
    "ECE, debiased": common.measured("ece_debiased"),
    "overconfidence": common.measured("overconfidence"),
    "NLL": common.measured("nll"),
    "Brier": common.measured("brier"),
    "AURC": common.measured("aurc"),
    "excess AURC": common.measured("excess_aurc"),
}
_SCALINGS = {"none": "none", "temperature": "temperature", "vector": "vector", "isotonic": "isotonic regression"}
_SCALED = {"ece": "ECE", "nll": "NLL", "brier": "Brier", "accuracy": "accuracy"}
_CONFORMAL = {"lac": "LAC", "aps": "APS, randomised"}
_SETS = {"coverage": "coverage", "set_size": "mean size", "empty_sets": "empty sets"}


def section(results: Results) -> Section:
    """The reliability diagram and accuracy over the margin in mean mode, tables, and the column "ECE"."""
    shown = common.with_metrics(results)
    return Section(
        "Calibration",
        "Is its confidence calibrated?",
        (_diagram(shown), _measures(shown), _margins(shown), _selective(shown), *_split(shown)) if shown else (),
        common.columns(shown, "ECE", common.measured("ece")),
        common.headlines(shown, "ece", "expected calibration error"),
    )


def _diagram(shown: Results) -> Figure:
    reading = common.over_accuracy(common.column(shown, "overconfidence", mode=MEAN), "confidence")
    reading += " Larger points stand for more images."
    return _reliability("Reliability", reading, shown, "equal_width", "confidence")


def _margins(shown: Results) -> Figure:
    """Accuracy over p₁ − p₂, as in figure 7 of the rate-distortion paper."""
    means = "; ".join(f"{name}: {percent(m.value)}" for name, m in common.column(shown, "margin", mode=MEAN).items())
    reading = f"The margin is the largest probability less the second largest. Its mean: {means}."
    return _reliability("Accuracy over the prediction margin", reading, shown, "margin", "margin")


def _selective(shown: Results) -> Figure:
    """Error among the images with the highest confidence, as risk over coverage."""
    curves = {name: result.details["selective"][MEAN] for name, result in shown.items()}
    series = [Series(name, tuple(of["coverage"]), tuple(of["risk"]), group=name) for name, of in curves.items()]
    areas = "; ".join(
        f"{name}: {number(m.value or 0.0)}" for name, m in common.column(shown, "excess_aurc", mode=MEAN).items()
    )
    reading = (
        "Images are classified in the order of confidence. The curve starts near 0 if wrong predictions have low "
        f"confidence. Area under it above that of a perfect order: {areas}."
    )
    axes = "coverage: fraction of images classified", "risk: fraction of these that are wrong"
    return Figure("Selective classification", reading, *axes, tuple(series), x_range=(0.0, 1.0))


def _reliability(title: str, reading: str, shown: Results, kind: str, of: str) -> Figure:
    binned = {name: common.bins_of(result.details["bins"][MEAN][kind]) for name, result in shown.items()}
    return common.reliability(title, reading, binned, of, diagonal=of == "confidence")


def _measures(shown: Results) -> Table:
    smallest = common.superlative(common.column(shown, "ece", mode=MEAN), "expected calibration error", "smallest")
    return common.table("Measures of calibration", f"{smallest}.", shown, _MEASURES)


def _split(shown: Results) -> list[Table]:
    """Recalibration and prediction sets, measured on the images that they were not fitted on."""
    split = {name: result for name, result in shown.items() if result.details.get("split")}
    if not split:
        return []
    temperatures = "; ".join(
        f"{name}: {number(m.value or 0.0)}" for name, m in common.column(split, "temperature", mode=MEAN).items()
    )
    reading = "Fitted on other images than those that are measured. "
    if temperatures:
        reading += (
            f"A temperature changes no prediction; above 1 the classifier was overconfident. It is {temperatures}."
        )
    alphas = listed(sorted({percent(1 - result.details["alpha"]) for result in split.values()}))
    ranges = listed([f"{_expected(result)} for {name}" for name, result in split.items()])
    sets = (
        f"A set of classes should contain the label with a probability of {alphas}. With this number of images, chance "
        f"puts the coverage between {ranges} (95% of all splits)."
    )
    return [
        _grid("Recalibration", reading, split, ("scaling", _SCALINGS), _SCALED),
        _grid("Conformal prediction sets", sets, split, ("conformal", _CONFORMAL), _SETS),
    ]


def _expected(result: CheckResult) -> str:
    low, high = result.details["split"][MEAN]["coverage"]
    return f"{percent(low)} and {percent(high)}"


def _grid(
    title: str, reading: str, shown: Results, rows: tuple[str, Mapping[str, str]], columns: Mapping[str, str]
) -> Table:
    """A row for each classifier, mode and value of a coordinate."""
    coordinate, values = rows
    found = [
        (common.label(name, mode), heading, cells)
        for name, result in shown.items()
        for mode in common.modes(result)
        for value, heading in values.items()
        if any(cells := _cells(result, columns, {"mode": mode, coordinate: value}))
    ]
    plain = tuple((*names, *(m and m.model_copy(update={"note": ""}) for m in cells)) for *names, cells in found)
    return Table(title, reading, ("classifier", coordinate, *columns.values()), plain)


def _cells(result: CheckResult, columns: Mapping[str, str], at: Mapping[str, str]) -> list[Metric | None]:
    return [result.metrics.get(name, **at) for name in columns]
