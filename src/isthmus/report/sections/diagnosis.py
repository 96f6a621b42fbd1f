"""The verdict on robust accuracy, its evidence, the follow-up attacks, and the curves behind the tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from isthmus.core.display import Figure, Headline, Section, Series, Table
from isthmus.core.format import listed, percent, threat_title
from isthmus.core.types import Metric, Status
from isthmus.report.sections.common import MEAN, STOCHASTIC, Results, Row, column, label, with_metrics
from isthmus.report.statuses import WORDS

_CURVES = (
    ("restarts", "restarts", "Accuracy against the number of random starts", "random starts of PGD"),
    ("steps", "steps", "Accuracy against the number of steps", "steps of PGD"),
    ("radius", "eps", "Accuracy of the sample against ε", "perturbation ε, images in [0, 1]"),
)


def section(results: Results) -> Section:
    """Blocks and columns from stored results."""
    shown = with_metrics(results)
    blocks: list[Table | Figure] = []
    if shown:
        blocks += [_verdicts(shown), _evidence(shown)]
        if any(found["follow_ups"] for _, _, found in _modes(shown)):
            blocks.append(_follow_ups(shown))
        blocks += [figure for curve in _CURVES if (figure := _curve(shown, *curve)) is not None]
    question = "Is the robust accuracy genuine, or were the attacks too weak?"
    return Section("Is its robustness genuine?", question, tuple(blocks), _columns(shown), _headlines(shown))


def _headlines(shown: Results) -> dict[str, Headline]:
    """The verdict of the worse mode, and the robust accuracy after all attacks."""
    found = {}
    for name, result in shown.items():
        verdict, mode = result.details["verdict"], result.details["mode"]
        notes = [f"{percent(verdict['reported'])} reported", *([] if mode == MEAN else [f"{mode} mode"])]
        at = threat_title(result.details["threat"]).replace(" ", "\u00a0")
        found[name] = Headline(
            Metric.model_validate(verdict["corrected_metric"]),
            f"robust accuracy after all attacks, {at}",
            verdict["status"],
            ", ".join(notes),
        )
    return found


def _modes(shown: Results) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Classifier, mode, and what was found."""
    for name, result in shown.items():
        for mode, found in result.details["modes"].items():
            yield name, mode, found


def _columns(shown: Results) -> dict[str, dict[str, Metric]]:
    columns: dict[str, dict[str, Metric]] = {}
    for metric, word in (("corrected_accuracy", "corrected"), ("reported_accuracy", "reported")):
        for mode, suffix in ((MEAN, ""), (STOCHASTIC, ", stochastic")):
            for name, result in shown.items():
                at = {"norm": result.details["norm"], "eps": result.details["eps"]}
                title = f"{word} robust accuracy at {threat_title(result.details['threat'])}{suffix}"
                for metric_of in column({name: result}, metric, mode=mode, **at).values():
                    columns.setdefault(title, {})[name] = metric_of
    return columns


def _verdicts(shown: Results) -> Table:
    rows: list[Row] = []
    for name, mode, found in _modes(shown):
        verdict, passes = found["verdict"], found["passes"]
        n = verdict["corrected_metric"]["n"]
        rows.append(
            (
                label(name, mode),
                verdict["status"],
                Metric.model_validate(verdict["reported_metric"]),
                Metric.model_validate(verdict["corrected_metric"]),
                round((passes["forward"] + passes["backward"]) / n),
                round(passes["bound"] / n),
            )
        )
    readings = [f"{label(name, mode)}: {found['verdict']['reason']}" for name, mode, found in _modes(shown)]
    columns = ("classifier", "verdict", "reported", "corrected", "passes per image", "at most")
    return Table("Verdict", f"{'. '.join(readings)}.", columns, tuple(rows))


def _evidence(shown: Results) -> Table:
    rows: list[Row] = []
    failures: list[str] = []
    for name, mode, found in _modes(shown):
        for test in found["tests"]:
            status = WORDS[Status(test["status"])]
            rows.append((label(name, mode), test["test"].replace("_", " "), status, test["reason"]))
        failed = [f["test"].replace("_", " ") for f in found["tests"] if f["status"] == "fail"]
        if failed:
            failures.append(f"{label(name, mode)} fails {listed(failed)}")
    reading = f"{'; '.join(failures)}." if failures else "No test failed."
    return Table("Evidence", reading, ("classifier", "test", "outcome", "finding"), tuple(rows))


def _follow_ups(shown: Results) -> Table:
    rows: list[Row] = []
    for name, mode, found in _modes(shown):
        for attack, stored in found["follow_ups"].items():
            left = Metric.model_validate(stored)
            rows.append((label(name, mode), attack.replace("_", " "), left if left.value is not None else left.note))
    last = [
        f"{percent(found['verdict']['corrected'])} for {label(name, mode)}"
        for name, mode, found in _modes(shown)
        if found["follow_ups"]
    ]
    reading = f"Robust accuracy after all of them: {listed(last)}."
    return Table("Follow-up attacks", reading, ("classifier", "attack", "robust accuracy after it"), tuple(rows))


def _curve(shown: Results, test: str, axis: str, title: str, x_label: str) -> Figure | None:
    series, falls = [], []
    for name, mode, found in _modes(shown):
        details: dict[str, Any] = next((f["details"] for f in found["tests"] if f["test"] == test), {})
        if not details:
            continue
        x, y = tuple(map(float, details[axis])), tuple(map(float, details["accuracy"]))
        style = "line" if mode == MEAN else "dashed"
        series.append(Series(label(name, mode), x, y, style=style, group=name))  # type: ignore[arg-type]
        falls.append(f"from {percent(y[0])} to {percent(y[-1])} for {label(name, mode)}")
    if not series:
        return None
    return Figure(title, f"It changes {listed(falls)}.", x_label, "accuracy", tuple(series), y_range=(0.0, 1.0))
