"""Margins and the accuracy over them on another data set, zero-shot and one-shot, and a table."""

from __future__ import annotations

from collections.abc import Iterator

from isthmus.core.display import Block, Figure, Headline, Mark, Section, Table
from isthmus.core.format import listed, percent
from isthmus.core.types import CheckResult, Metric
from isthmus.report.sections import common
from isthmus.report.sections.common import MEAN, Results

_SHOTS = {"zero-shot": "zero_shot", "one-shot": "one_shot"}
"""Titles by number of shots, and the names of stored bins."""
_TITLES = {
    "accuracy": "accuracy",
    "gain": "gain",
    "margin": "mean margin",
    "overconfidence": "overconfidence",
    "margin_error": "calibration error of the margin",
}


def section(results: Results) -> Section:
    """For each data set two figures zero-shot and two one-shot, as figure 7 of the paper, and a table."""
    shown = common.with_metrics(results)
    blocks: list[Block] = []
    columns: dict[str, dict[str, Metric]] = {}
    for data in dict.fromkeys(result.details["data"] for result in shown.values()):
        own = {name: result for name, result in shown.items() if result.details["data"] == data}
        for shots, (title, stored) in enumerate(_SHOTS.items()):
            having = {name: result for name, result in own.items() if stored in result.details["bins"]}
            if having:
                blocks += _figures(f"{data}, {title}", shots, stored, having)
                columns[f"{title} accuracy on {data}"] = common.column(having, "accuracy", mode=MEAN, shots=shots)
        blocks.append(_table(data, own))
    headlines = {name: _headline(result) for name, result in shown.items()}
    question = "What is its accuracy on another data set with the same classes?"
    return Section("Transfer", question, tuple(blocks), columns, headlines)


def _headline(result: CheckResult) -> Headline:
    accuracy = result.metrics.one("accuracy", mode=common.status_mode(result), shots=0)
    return common.headline(accuracy, f"zero-shot accuracy on {result.details['data']}")


def _figures(title: str, shots: int, stored: str, shown: Results) -> Iterator[Figure]:
    """The distribution of margins, and accuracy over them; for a single classifier also both means."""
    binned = {name: common.bins_of(result.details["bins"][stored]) for name, result in shown.items()}
    marks = []
    if len(shown) == 1:
        (found,) = (result.metrics for result in shown.values())
        means = {_TITLES[name]: found.one(name, mode=MEAN, shots=shots) for name in ("accuracy", "margin")}
        marks = [Mark(what, x=mean.value) for what, mean in means.items() if mean.value is not None]
    yield Figure(
        f"Margins on {title}",
        common.over_accuracy(common.column(shown, "overconfidence", mode=MEAN, shots=shots), "the margin"),
        "margin: the largest probability less the second",
        "fraction of the images",
        tuple(common.share_series(name, bins) for name, bins in binned.items()),
        tuple(marks),
        x_range=(0.0, 1.0),
    )
    errors = common.column(shown, "margin_error", mode=MEAN, shots=shots)
    each = listed([f"{percent(error.value)} ({name})" for name, error in errors.items() if error.value is not None])
    reading = f"Above the diagonal margins are too small, below it too large. Expected error: {each}."
    reading += " Of the first copy." if shots else ""
    reading = reading if each else "No image has finite logits."
    yield common.reliability(f"Accuracy over the margin on {title}", reading, binned, "margin", diagonal=True)


def _table(data: str, shown: Results) -> Table:
    cells = {
        f"{title} {what}": common.measured(name, shots=shots)
        for shots, title in enumerate(_SHOTS)
        for name, what in _TITLES.items()
    }
    notes = list(dict.fromkeys(result.details["notice"] for result in shown.values() if result.details["notice"]))
    kept = [
        f"{name} is not adapted: {why}." for name, result in shown.items() if (why := result.details["not_adapted"])
    ]
    reading = "Overconfidence is the mean margin less the accuracy."
    if draws := max(result.details["draws"] for result in shown.values()):
        reading += f" One-shot: means over {draws} copies of the model, each adapted to other examples."
    return common.table(f"Transfer to {data}", " ".join([reading, *notes, *kept]), shown, cells)
