"""How the page shows fault tolerance: information and accuracy against the signal-to-noise ratio, and the averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isthmus.checks.views import MEAN, column, in_mode, listed, measured, percent
from isthmus.core.types import CheckResult, Figure, Headline, Mark, Metric, Section, Series, Table

SPOKEN = {"white": "white noise", "l2": "ℓ2 steps", "linf": "sign steps"}
"""Kinds of noise as a reader wants them."""

_AXIS = "signal-to-noise ratio in dB; less noise to the right"
_RETURNED = 0.1  # of H(Y): a rise of information that is worth a sentence
_LISTED = 3


def section(results: Mapping[str, CheckResult]) -> Section:
    """Two figures of the mean mode, a table of both modes, a column for each noise; the worst is the headline."""
    shown = measured(results)
    blocks: list[Figure | Table] = []
    if told := {name: each for name, each in shown.items() if each.metrics["transmitted_bits"].value is not None}:
        blocks.append(_information(told))
    if shown:
        blocks += [_accuracy(shown), _table(shown)]
    question = "How much do answers still tell of the labels as noise grows?"
    columns = _columns(shown)
    headlines = {name: _headline(name, result) for name, result in shown.items()}
    return Section("Fault tolerance", question, tuple(blocks), columns, headlines)


def _headline(name: str, result: CheckResult) -> Headline:
    """Of the noises that were asked about, the one that leaves least, in the mode that the status is of."""
    mode = result.details.get("mode", MEAN)
    own = {title: found[name] for title, found in _columns({name: result}, mode).items()}
    title = min(own, key=lambda title: own[title].value or 0.0)
    return Headline(own[title], title, note="" if mode == MEAN else f"{mode} mode")


def _columns(shown: Mapping[str, CheckResult], mode: str = MEAN) -> dict[str, dict[str, Metric]]:
    """Information kept, or accuracy where it is not measured; other ranges make other columns."""
    columns: dict[str, dict[str, Metric]] = {}
    for noise, said in SPOKEN.items():
        for name, found in column(shown, in_mode(f"kept_{noise}", mode)).items():
            what, number = ("information kept", found)
            if found.value is None:
                what, number = ("accuracy", shown[name].metrics[in_mode(f"accuracy_{noise}", mode)])
            columns.setdefault(f"{what} under {said}, {_range(shown[name])}", {})[name] = number
    return columns


def _range(result: CheckResult) -> str:
    snr = result.details["snr"]
    return f"{snr[-1]:g} to {snr[0]:g} dB"


def _series(shown: Mapping[str, CheckResult], what: str) -> tuple[Series, ...]:
    """A line for each classifier and kind of noise, by ascending ratio; the clean image has none to stand at."""
    series = []
    for name, result in shown.items():
        for noise, found in result.details["modes"][MEAN].items():
            points = [Metric.model_validate(entry) for entry in reversed(found[what][1:])]
            series.append(
                Series(
                    f"{name} ({SPOKEN[noise]})",
                    x=tuple(reversed(result.details["snr"])),
                    y=tuple(point.value or 0.0 for point in points),
                    low=tuple(point.interval.low if point.interval else 0.0 for point in points),
                    high=tuple(point.interval.high if point.interval else 0.0 for point in points),
                    style="line" if noise == "white" else "dashed",
                    group=name,
                )
            )
    return tuple(series)


def _information(shown: Mapping[str, CheckResult]) -> Figure:
    entropies = {round(result.details["label_entropy_bits"], 3) for result in shown.values()}
    marks = tuple(Mark("H(Y), all there is", y=entropy) for entropy in entropies) if len(entropies) == 1 else ()
    label = "I(T;Y) of answers and labels, in bits"
    series = _series(shown, "information_bits")
    return Figure("Information under noise", f"{_kept(shown)} {_returned(shown)}".strip(), _AXIS, label, series, marks)


def _kept(shown: Mapping[str, CheckResult]) -> str:
    """What each keeps, and who keeps the most."""
    ranges = list(dict.fromkeys(_range(result) for result in shown.values()))
    parts = []
    for noise, said in SPOKEN.items():
        found = column(shown, f"kept_{noise}")
        ranked = sorted(found, key=lambda name: -(found[name].value or 0.0))
        each = [f"{percent(found[name].value)}{f' ({name})' if len(shown) > 1 else ''}" for name in ranked[:_LISTED]]
        more = f" ({len(ranked) - _LISTED} others no more)" if len(ranked) > _LISTED else ""
        if ranked:
            parts.append(f"{', '.join(each)}{more} under {said}")
    said = f"Averaged over {listed(ranges)}, of the labels' information is kept: {'; '.join(parts)}."
    return said if len(ranges) == 1 else f"{said} Averages over different ranges do not compare."


def _returned(shown: Mapping[str, CheckResult]) -> str:
    """Whose information returns as noise grows, and what that is."""
    lines = [
        f"{name} under {SPOKEN[noise]}" if len(shown) > 1 else SPOKEN[noise]
        for name, result in shown.items()
        for noise, found in result.details["modes"][MEAN].items()
        if _rise(found["information_bits"]) > _RETURNED * result.details["label_entropy_bits"]
    ]
    if not lines:
        return ""
    which = listed(lines) if len(lines) <= _LISTED else f"{len(lines)} of the lines"
    return (
        f"Where information returns as noise grows ({which}), wrong answers tell of the label, since the noise was "
        "made against it; the averages leave that out."
    )


def _rise(stored: Sequence[Mapping[str, float]]) -> float:
    """By how much information exceeds its least at a higher ratio."""
    least, rise = float("inf"), 0.0
    for entry in stored:
        least = min(least, entry["value"])
        rise = max(rise, entry["value"] - least)
    return rise


def _accuracy(shown: Mapping[str, CheckResult]) -> Figure:
    parts = []
    for noise, said in SPOKEN.items():
        modes = {name: result.details["modes"][MEAN].get(noise) for name, result in shown.items()}
        ends = {name: found["accuracy"][-1]["value"] for name, found in modes.items() if found is not None}
        if ends:
            least = percent(min(ends.values()))
            names = listed([name for name in ends if percent(ends[name]) == least])
            parts.append(f"{least}{f' ({names})' if len(shown) > 1 else ''} under {said}")
    verb = "is left" if len(shown) == 1 else "the least that is left is"
    reading = f"At the lowest ratio {verb} {listed(parts)}. "
    reading += "Steps along the gradient can make every answer wrong, white noise only random."
    series = _series(shown, "accuracy")
    return Figure("Accuracy under the same noise", reading, _AXIS, "accuracy", series, y_range=(0.0, 1.0))


def _table(shown: Mapping[str, CheckResult]) -> Table:
    titles = {"transmitted_bits": "I(T;Y), clean"}
    titles |= {f"kept_{noise}": f"information kept under {said}" for noise, said in SPOKEN.items()}
    titles |= {f"gap_{noise}": f"lost to {said} beyond white noise" for noise, said in SPOKEN.items()}
    titles |= {f"accuracy_{noise}": f"accuracy under {said}" for noise, said in SPOKEN.items()}
    names = [name for name in titles if any(name in result.metrics for result in shown.values())]
    rows: list[tuple[str | float | Metric | None, ...]] = []
    for name, result in shown.items():
        for mode, passes in result.details["passes"].items():
            label = name if mode == MEAN else f"{name} ({mode})"
            found = [result.metrics.get(in_mode(metric, mode)) for metric in names]
            each = sum(sum(counts) for counts in passes.values()) / result.metrics["transmitted_bits"].n
            rows.append((label, round(result.details["label_entropy_bits"], 3), *found, round(each)))
    columns = ("classifier", "H(Y), bits", *(titles[name] for name in names), "passes per image")
    reading = "Averages over the ratios. At each of them counts the least that is transmitted, and the images that are "
    reading += "right, there and under all smaller noise."
    return Table("Averages", reading, columns, tuple(rows))
