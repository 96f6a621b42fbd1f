"""Margins and the accuracy over them on another data set, zero-shot and one-shot, and a table."""

from __future__ import annotations

from isthmus.core.display import Figure, Headline, Mark, Section, Table
from isthmus.core.format import listed, percent, points
from isthmus.core.types import CheckResult, Metric
from isthmus.metrics import Bin
from isthmus.report.sections.common import (
    MEAN,
    Results,
    Row,
    bin_series,
    column,
    label,
    share_series,
    with_metrics,
)

_SHOTS = ("zero-shot", "one-shot")  # by number of shots
_BINS = ("zero_shot", "one_shot")
_TITLES = {
    "accuracy": "accuracy",
    "gain": "gain",
    "margin": "mean margin",
    "overconfidence": "overconfidence",
    "margin_error": "calibration error of the margin",
}


def section(results: Results) -> Section:
    """For each data set two figures zero-shot and two one-shot, as figure 7 of the paper, and a table."""
    shown = with_metrics(results)
    blocks: list[Figure | Table] = []
    columns: dict[str, dict[str, Metric]] = {}
    for data in dict.fromkeys(result.details["data"] for result in shown.values()):
        own = {name: result for name, result in shown.items() if result.details["data"] == data}
        for shots, title in enumerate(_SHOTS):
            having = {name: result for name, result in own.items() if _BINS[shots] in result.details["bins"]}
            if having:
                blocks += [_margins(shots, data, having), _accuracies(shots, data, having)]
                columns[f"{title} accuracy on {data}"] = column(having, "accuracy", mode=MEAN, shots=shots)
        blocks.append(_table(data, own))
    headlines = {name: _headline(result) for name, result in shown.items()}
    question = "What is its accuracy on another data set with the same classes?"
    return Section("Transfer", question, tuple(blocks), columns, headlines)


def _headline(result: CheckResult) -> Headline:
    mode = result.details["mode"]
    accuracy = result.metrics.one("accuracy", mode=mode, shots=0)
    note = "" if mode == MEAN else f"{mode} mode"
    return Headline(accuracy, f"zero-shot accuracy on {result.details['data']}", note=note)


def _binned(result: CheckResult, shots: int) -> list[Bin]:
    return [Bin.model_validate(stored) for stored in result.details["bins"][_BINS[shots]]]


def _margins(shots: int, data: str, shown: Results) -> Figure:
    """The distribution of margins; for a single classifier also its mean margin and accuracy."""
    series = [share_series(name, _binned(result, shots)) for name, result in shown.items()]
    marks = []
    if len(shown) == 1:
        found = next(iter(shown.values())).metrics
        for name, title in (("accuracy", "accuracy"), ("margin", "mean margin")):
            value = found.one(name, mode=MEAN, shots=shots).value
            marks += [] if value is None else [Mark(title, x=value)]
    return Figure(
        f"Margins on {data}, {_SHOTS[shots]}",
        _reading(shots, shown),
        "margin: the largest probability less the second",
        "fraction of the images",
        tuple(series),
        tuple(marks),
        x_range=(0.0, 1.0),
    )


def _reading(shots: int, shown: Results) -> str:
    """Whether margins exceed accuracy on average, and by how much."""
    groups: dict[str, list[str]] = {}
    for name, gap in column(shown, "overconfidence", mode=MEAN, shots=shots).items():
        if gap.value is None:
            continue
        if gap.interval is None or gap.interval.low <= 0 <= gap.interval.high:
            groups.setdefault("are not shown to differ from accuracy for", []).append(name)
        else:
            way = "are too large for" if gap.value > 0 else "are too small for"
            groups.setdefault(way, []).append(f"{name} (by {points(gap.value)})")
    parts = [f"{way} {listed(names)}" for way, names in groups.items()]
    return f"On average, margins {'; they '.join(parts)}." if parts else "No image has a margin."


def _accuracies(shots: int, data: str, shown: Results) -> Figure:
    errors = column(shown, "margin_error", mode=MEAN, shots=shots)
    each = [f"{percent(error.value)} ({name})" for name, error in errors.items() if error.value is not None]
    first = " Of the first copy." if shots else ""
    reading = f"Above the diagonal margins are too small, below it too large. Expected error: {listed(each)}.{first}"
    return Figure(
        f"Accuracy over the margin on {data}, {_SHOTS[shots]}",
        reading if each else "No image has a margin.",
        "mean margin of the bin",
        "accuracy in the bin",
        tuple(bin_series(name, _binned(result, shots)) for name, result in shown.items()),
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        identity=True,
    )


def _table(data: str, shown: Results) -> Table:
    keys = [
        (shots, name)
        for shots in range(len(_SHOTS))
        for name in _TITLES
        if any(result.metrics.get(name, mode=MEAN, shots=shots) for result in shown.values())
    ]
    rows: list[Row] = [
        (label(classifier, mode), *(result.metrics.get(name, mode=mode, shots=shots) for shots, name in keys))
        for classifier, result in shown.items()
        for mode in result.details["modes"]
    ]
    titles = [f"{_SHOTS[shots]} {_TITLES[name]}" for shots, name in keys]
    notes = list(dict.fromkeys(result.details["notice"] for result in shown.values() if result.details["notice"]))
    kept = [
        f"{name} is not adapted: {why}." for name, result in shown.items() if (why := result.details["not_adapted"])
    ]
    draws = max(result.details["draws"] for result in shown.values())
    reading = "Overconfidence is the mean margin less the accuracy."
    if draws:
        reading += f" One-shot: means over {draws} copies of the model, each adapted to other examples."
    return Table(f"Transfer to {data}", " ".join([reading, *notes, *kept]), ("classifier", *titles), tuple(rows))
