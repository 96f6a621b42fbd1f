"""How the page shows a transfer: margins and the accuracy over them, zero-shot and one-shot, and a table."""

from __future__ import annotations

from collections.abc import Mapping

from isthmus.checks.views import (
    MEAN,
    bin_series,
    column,
    headlines,
    in_mode,
    listed,
    measured,
    percent,
    points,
    share_series,
)
from isthmus.core.types import CheckResult, Figure, Headline, Mark, Metric, Section, Table
from isthmus.metrics import Bin

_SHOTS = {"zero_shot": "zero-shot", "one_shot": "one-shot"}
_TITLES = {
    "accuracy": "accuracy",
    "gain": "gain",
    "margin": "mean margin",
    "overconfidence": "overconfidence",
    "margin_error": "error of the margin",
}


def section(results: Mapping[str, CheckResult]) -> Section:
    """For each data set two figures zero-shot and two one-shot, as figure 7 of the paper, and a table."""
    shown = measured(results)
    blocks: list[Figure | Table] = []
    columns: dict[str, dict[str, Metric]] = {}
    for data in dict.fromkeys(result.details["data"] for result in shown.values()):
        own = {name: result for name, result in shown.items() if result.details["data"] == data}
        for shot, said in _SHOTS.items():
            having = {name: result for name, result in own.items() if shot in result.details["bins"]}
            if having:
                blocks += [_margins(shot, data, having), _accuracies(shot, data, having)]
                columns[f"{said} accuracy on {data}"] = column(having, f"{shot}_accuracy")
        blocks.append(_table(data, own))
    answers: dict[str, Headline] = {}
    for name, result in shown.items():
        answers |= headlines({name: result}, "zero_shot_accuracy", f"zero-shot accuracy on {result.details['data']}")
    question = "What is the classifier worth on another data set with the same classes?"
    return Section("Transfer", question, tuple(blocks), columns, answers)


def _binned(result: CheckResult, shot: str) -> list[Bin]:
    return [Bin.model_validate(stored) for stored in result.details["bins"][shot]]


def _margins(shot: str, data: str, shown: Mapping[str, CheckResult]) -> Figure:
    """How the margins are spread; of a single classifier also where mean margin and accuracy lie."""
    series = [share_series(name, _binned(result, shot)) for name, result in shown.items()]
    marks = []
    if len(shown) == 1:
        found = next(iter(shown.values())).metrics
        values = {"accuracy": found[f"{shot}_accuracy"].value, "mean margin": found[f"{shot}_margin"].value}
        marks = [Mark(said, x=value) for said, value in values.items() if value is not None]
    return Figure(
        f"Margins on {data}, {_SHOTS[shot]}",
        _reading(shot, shown),
        "margin: the largest probability less the second",
        "share of the images",
        tuple(series),
        tuple(marks),
        x_range=(0.0, 1.0),
    )


def _reading(shot: str, shown: Mapping[str, CheckResult]) -> str:
    """By how much margins and accuracy differ on average, and for whom chance explains it."""
    said: dict[str, list[str]] = {}
    for name, result in shown.items():
        gap = result.metrics[f"{shot}_overconfidence"]
        if gap.value is None:
            continue
        if gap.interval is None or gap.interval.low <= 0 <= gap.interval.high:
            said.setdefault("are not shown to differ from accuracy for", []).append(name)
        else:
            way = "are too large for" if gap.value > 0 else "are too small for"
            said.setdefault(way, []).append(f"{name} (by {points(gap.value)})")
    parts = [f"{way} {listed(names)}" for way, names in said.items()]
    return f"On average, margins {'; they '.join(parts)}." if parts else "No image has a margin."


def _accuracies(shot: str, data: str, shown: Mapping[str, CheckResult]) -> Figure:
    errors = {name: result.metrics[f"{shot}_margin_error"] for name, result in shown.items()}
    each = [f"{percent(error.value)} ({name})" for name, error in errors.items() if error.value is not None]
    first = " Of the first copy." if shot == "one_shot" else ""
    return Figure(
        f"Accuracy over the margin on {data}, {_SHOTS[shot]}",
        f"Above the diagonal margins are too small, below it too large. Expected error: {listed(each)}.{first}"
        if each
        else "No image has a margin.",
        "mean margin of the bin",
        "accuracy in the bin",
        tuple(bin_series(name, _binned(result, shot)) for name, result in shown.items()),
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        identity=True,
    )


def _table(data: str, shown: Mapping[str, CheckResult]) -> Table:
    names = [
        f"{shot}_{name}"
        for shot in _SHOTS
        for name in _TITLES
        if any(f"{shot}_{name}" in result.metrics for result in shown.values())
    ]
    rows: list[tuple[str | float | Metric | None, ...]] = []
    for classifier, result in shown.items():
        for mode in result.details["modes"]:
            label = classifier if mode == MEAN else f"{classifier} ({mode})"
            rows.append((label, *(result.metrics.get(in_mode(name, mode)) for name in names)))
    titles = [
        f"{said} {_TITLES[name.removeprefix(f'{shot}_')]}"
        for name in names
        for shot, said in _SHOTS.items()
        if name.startswith(shot)
    ]
    notes = list(dict.fromkeys(result.details["notice"] for result in shown.values() if result.details["notice"]))
    kept = [
        f"{name} is not adapted: {why}." for name, result in shown.items() if (why := result.details["not_adapted"])
    ]
    draws = max(result.details["draws"] for result in shown.values())
    reading = "Overconfidence is the mean margin less the accuracy."
    if draws:
        reading += f" One-shot: means over {draws} copies of the model, each adapted by other examples."
    return Table(f"Transfer to {data}", " ".join([reading, *notes, *kept]), ("classifier", *titles), tuple(rows))
