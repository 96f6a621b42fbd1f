"""How the page shows the verdict: what was reported and what is left, the evidence, and the curves behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from isthmus.checks.robustness_page import NO_BREAK, spoken
from isthmus.checks.views import MEAN, column, in_mode, listed, measured, percent
from isthmus.core.types import CheckResult, Figure, Headline, Metric, Section, Series, Table

QUESTION = "Does the robust accuracy stand when the attack, rather than the classifier, is put to the test?"
_WORDS = {"pass": "passes", "warn": "warning", "fail": "fails", "skipped": "not asked", "error": "broke off"}
_CURVES = (
    ("restarts", "restarts", "Accuracy against the number of random starts", "random starts of PGD"),
    ("steps", "steps", "Accuracy against the number of steps", "steps of PGD"),
    ("radius", "eps", "Accuracy of the sample against ε", "perturbation ε, images in [0, 1]"),
)


def section(results: Mapping[str, CheckResult]) -> Section:
    """Blocks and columns from stored results."""
    shown = measured(results)
    blocks: list[Table | Figure] = []
    if shown:
        blocks += [_verdicts(shown), _evidence(shown)]
        if any(found["follow_ups"] for _, _, found in _modes(shown)):
            blocks.append(_follow_ups(shown))
        blocks += [figure for curve in _CURVES if (figure := _curve(shown, *curve)) is not None]
    return Section("Is the robustness real?", QUESTION, tuple(blocks), _columns(shown), _headlines(shown))


def _headlines(shown: Mapping[str, CheckResult]) -> dict[str, Headline]:
    """The verdict, of the mode that fares worse, and what is left after all tests."""
    found = {}
    for name, result in shown.items():
        verdict, mode = result.details["verdict"], result.details["mode"]
        notes = [f"{percent(verdict['reported'])} reported", *([] if mode == MEAN else [f"{mode} mode"])]
        found[name] = Headline(
            Metric.model_validate(verdict["corrected_metric"]),
            f"robust accuracy after all tests, {spoken(result.details['threat']).replace(' ', NO_BREAK)}",
            verdict["status"],
            ", ".join(notes),
        )
    return found


def _modes(shown: Mapping[str, CheckResult]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name of the classifier, mode, and what was found."""
    for name, result in shown.items():
        for mode, found in result.details["modes"].items():
            yield name, mode, found


def _label(name: str, mode: str) -> str:
    return name if mode == MEAN else f"{name} ({mode})"


def _columns(shown: Mapping[str, CheckResult]) -> dict[str, dict[str, Metric]]:
    columns: dict[str, dict[str, Metric]] = {}
    for metric, word in (("corrected_accuracy", "corrected"), ("reported_accuracy", "reported")):
        for mode in (MEAN, "stochastic"):
            for name, found in column(shown, in_mode(metric, mode)).items():
                suffix = "" if mode == MEAN else f", {mode}"
                title = f"{word} robust accuracy at {spoken(shown[name].details['threat'])}{suffix}"
                columns.setdefault(title, {})[name] = found
    return columns


def _verdicts(shown: Mapping[str, CheckResult]) -> Table:
    rows: list[tuple[str | float | Metric | None, ...]] = []
    for name, mode, found in _modes(shown):
        verdict, passes = found["verdict"], found["passes"]
        n = verdict["corrected_metric"]["n"]
        rows.append(
            (
                _label(name, mode),
                verdict["status"],
                Metric.model_validate(verdict["reported_metric"]),
                Metric.model_validate(verdict["corrected_metric"]),
                round((passes["forward"] + passes["backward"]) / n),
                round(passes["bound"] / n) if "bound" in passes else None,  # earlier versions had none
            )
        )
    readings = [f"{_label(name, mode)}: {found['verdict']['reason']}" for name, mode, found in _modes(shown)]
    columns = ("classifier", "verdict", "reported", "corrected", "passes per image", "at most")
    return Table("Verdict", f"{'. '.join(readings)}.", columns, tuple(rows))


def _evidence(shown: Mapping[str, CheckResult]) -> Table:
    rows: list[tuple[str | float | Metric | None, ...]] = []
    against: list[str] = []
    for name, mode, found in _modes(shown):
        for finding in found["findings"]:
            rows.append(
                (_label(name, mode), finding["test"].replace("_", " "), _WORDS[finding["status"]], finding["reason"])
            )
        failed = [f["test"].replace("_", " ") for f in found["findings"] if f["status"] == "fail"]
        if failed:
            against.append(f"against {_label(name, mode)} speak {listed(failed)}")
    reading = f"{'; '.join(against)}." if against else "No test failed."
    return Table(
        "Evidence",
        f"{reading[0].upper()}{reading[1:]}",
        ("classifier", "test", "outcome", "what it found"),
        tuple(rows),
    )


def _follow_ups(shown: Mapping[str, CheckResult]) -> Table:
    rows: list[tuple[str | float | Metric | None, ...]] = []
    for name, mode, found in _modes(shown):
        for remedy, metric in found["follow_ups"].items():
            left = Metric.model_validate(metric)
            rows.append((_label(name, mode), remedy.replace("_", " "), left if left.value is not None else left.note))
    last = [f"{_label(n, m)} {percent(f['verdict']['corrected'])}" for n, m, f in _modes(shown) if f["follow_ups"]]
    reading = f"After all of them there is left: {listed(last)}."
    return Table("What was tried next", reading, ("classifier", "follow-up", "accuracy left after it"), tuple(rows))


def _curve(shown: Mapping[str, CheckResult], test: str, axis: str, title: str, x_label: str) -> Figure | None:
    series, falls = [], []
    for name, mode, found in _modes(shown):
        details: dict[str, Any] = next((f["details"] for f in found["findings"] if f["test"] == test), {})
        if not details:
            continue
        x, y = tuple(map(float, details[axis])), tuple(map(float, details["accuracy"]))
        style = "line" if mode == MEAN else "dashed"
        series.append(Series(_label(name, mode), x, y, style=style, group=name))  # type: ignore[arg-type]
        falls.append(f"{_label(name, mode)} from {percent(y[0])} to {percent(y[-1])}")
    if not series:
        return None
    return Figure(title, f"It goes, for {listed(falls)}.", x_label, "accuracy", tuple(series), y_range=(0.0, 1.0))
