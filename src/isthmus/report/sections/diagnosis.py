"""The verdict on robust accuracy, its evidence, the follow-up attacks, and the curves behind the tests."""

from __future__ import annotations

from typing import Any

from isthmus.core.display import Block, Figure, Finding, Grid, Headline, Section, Series, Table
from isthmus.core.format import listed, percent, purpose_title, threat_title
from isthmus.core.types import CheckResult, Metric, Status
from isthmus.report.sections import common
from isthmus.report.sections.common import MEAN, Results

_CURVES = (
    ("restarts", "restarts", "Accuracy against the number of random starts", "random starts of PGD"),
    ("steps", "steps", "Accuracy against the number of steps", "steps of PGD"),
    ("radius", "eps", "Accuracy of the sample against ε", "perturbation ε, images in [0, 1]"),
)

Modes = dict[str, dict[str, Any]]
"""What was found, by classifier and mode: "vib (stochastic)"."""


def section(results: Results) -> Section:
    """Blocks and columns from stored results."""
    shown = common.with_metrics(results)
    found = {
        common.label(name, mode): {"name": name, "mode": mode, **of}
        for name, result in shown.items()
        for mode, of in result.details["modes"].items()
    }
    blocks: list[Block] = []
    if found:
        blocks += [_evidence(found), _verdicts(found), *_follow_ups(found)]
        blocks += [figure for curve in _CURVES for figure in _curve(found, *curve)]
    compared = _column(shown, "corrected") | _column(shown, "reported")
    headlines = {name: _headline(result) for name, result in shown.items()}
    question = "Is the robust accuracy genuine, or were the attacks too weak?"
    return Section("Is its robustness genuine?", question, tuple(blocks), compared, headlines)


def _column(shown: Results, word: str) -> dict[str, dict[str, Metric]]:
    return common.columns(
        shown,
        lambda result: f"{word} robust accuracy at {threat_title(result.details['threat'])}",
        lambda result, mode: result.metrics.get(f"{word}_accuracy", mode=mode, **common.threat(result)),
    )


def _headline(result: CheckResult) -> Headline:
    """The verdict of the worse mode, and the robust accuracy after all attacks."""
    verdict, at = result.details["verdict"], threat_title(result.details["threat"]).replace(" ", "\u00a0")
    corrected = result.metrics.one("corrected_accuracy", mode=common.status_mode(result), **common.threat(result))
    title, note = f"robust accuracy after all attacks, {at}", f"{percent(verdict['reported'])} reported"
    return common.headline(corrected, title, verdict["status"], note)


def _verdicts(found: Modes) -> Table:
    rows = []
    for name, of in found.items():
        verdict, passes = of["verdict"], of["passes"]
        reported, corrected = (Metric.model_validate(verdict[f"{one}_metric"]) for one in ("reported", "corrected"))
        each = (round(number / corrected.n) for number in (passes["forward"] + passes["backward"], passes["bound"]))
        rows.append((name, verdict["status"], reported, corrected, *each))
    reading = "Passes are forward and backward; at most: the budget."
    columns = ("classifier", "verdict", "reported", "corrected", "passes per image", "at most")
    return Table("Verdict", reading, columns, tuple(rows))


def _evidence(found: Modes) -> Grid:
    tests = {label: {test["test"]: test for test in of["tests"]} for label, of in found.items()}
    names = list(dict.fromkeys(name for own in tests.values() for name in own))
    rows = tuple((purpose_title(name), tuple(_finding(own.get(name)) for own in tests.values())) for name in names)
    outcomes = [test["status"] for own in tests.values() for test in own.values()]
    failed = sum(outcome == Status.FAIL for outcome in outcomes)
    reading = f"{failed} of {len(outcomes)} tests failed." if failed else "No test failed."
    return Grid("Evidence", reading, tuple(tests), rows)


def _finding(test: dict[str, Any] | None) -> Finding | None:
    return None if test is None else Finding(Status(test["status"]), f"{test['reason']}.")


def _follow_ups(found: Modes) -> list[Table]:
    made = {name: of for name, of in found.items() if of["follow_ups"]}
    if not made:
        return []
    rows = []
    for name, of in made.items():
        for attack, stored in of["follow_ups"].items():
            left = Metric.model_validate(stored)
            rows.append((name, purpose_title(attack), left if left.value is not None else left.note))
    last = listed([f"{percent(of['verdict']['corrected'])} for {name}" for name, of in made.items()])
    columns = ("classifier", "attack", "robust accuracy after it")
    return [Table("Follow-up attacks", f"Robust accuracy after all of them: {last}.", columns, tuple(rows))]


def _curve(found: Modes, test: str, axis: str, title: str, x_label: str) -> list[Figure]:
    series: list[Series] = []
    falls: dict[tuple[str, str], list[str]] = {}
    for name, of in found.items():
        details: dict[str, Any] = next((each["details"] for each in of["tests"] if each["test"] == test), {})
        if not details:
            continue
        x, y = tuple(map(float, details[axis])), tuple(map(float, details["accuracy"]))
        series.append(Series(name, x, y, style="line" if of["mode"] == MEAN else "dashed", group=of["name"]))
        falls.setdefault((percent(y[0]), percent(y[-1])), []).append(name)
    if not series:
        return []
    changes = [
        (f"stays at {first}" if first == last else f"changes from {first} to {last}")
        + (f" for {listed(names)}" if len(series) > len(names) else " for each" if len(names) > 1 else "")
        for (first, last), names in falls.items()
    ]
    return [Figure(title, f"It {listed(changes)}.", x_label, "accuracy", tuple(series), y_range=(0.0, 1.0))]
