"""Reliability diagram, accuracy over the margin, selective classification, and the measures of calibration."""

from __future__ import annotations

from isthmus.core.display import Figure, Section, Series, Table
from isthmus.core.format import percent
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
_SCALED = {
    "temperature": common.measured("temperature"),
    "ECE before": common.measured("ece", scaling="before"),
    "ECE after": common.measured("ece", scaling="after"),
    "NLL before": common.measured("nll", scaling="before"),
    "NLL after": common.measured("nll", scaling="after"),
}


def section(results: Results) -> Section:
    """The reliability diagram and accuracy over the margin in mean mode, tables, and the column "ECE"."""
    shown = common.with_metrics(results)
    return Section(
        "Calibration",
        "Is its confidence calibrated?",
        (_diagram(shown), _measures(shown), _margins(shown), _selective(shown), *_scaling(shown)) if shown else (),
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
        f"{name}: {percent(m.value)}" for name, m in common.column(shown, "excess_aurc", mode=MEAN).items()
    )
    reading = (
        "Images are classified in the order of confidence; the curve falls to the left if errors are uncertain. Area "
        f"under the curve above that of a perfect order: {areas}."
    )
    axes = "coverage: fraction of images that are classified", "risk: their error"
    return Figure("Selective classification", reading, *axes, tuple(series), x_range=(0.0, 1.0))


def _reliability(title: str, reading: str, shown: Results, kind: str, of: str) -> Figure:
    binned = {name: common.bins_of(result.details["bins"][MEAN][kind]) for name, result in shown.items()}
    return common.reliability(title, reading, binned, of, diagonal=of == "confidence")


def _measures(shown: Results) -> Table:
    smallest = common.superlative(common.column(shown, "ece", mode=MEAN), "expected calibration error", "smallest")
    return common.table("Measures of calibration", f"{smallest}.", shown, _MEASURES)


def _scaling(shown: Results) -> list[Table]:
    scaled = {name: result for name, result in shown.items() if result.metrics.get("temperature", mode=MEAN)}
    reading = (
        "All logits are divided by a temperature, fitted on other examples than those of this table. It changes no "
        "prediction; above 1 the classifier was overconfident."
    )
    return [common.table("Temperature scaling", reading, scaled, _SCALED)] if scaled else []
