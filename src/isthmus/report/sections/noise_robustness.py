"""Information and accuracy against the signal-to-noise ratio, and their averages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from isthmus.core.display import Block, Figure, Headline, Mark, Section, Series, Table
from isthmus.core.format import listed
from isthmus.core.types import CheckResult, Metric
from isthmus.report.sections import common
from isthmus.report.sections.common import MEAN, Results

_AXIS = "signal-to-noise ratio in dB; less noise to the right"
_AVERAGES = {
    "information_kept": "information kept under {}",
    "information_gap": "lost to {} beyond white noise",
    "accuracy": "accuracy under {}",
}
_RETURNED = 0.1  # of H(Y): a rise of information that the caption mentions
_NAMED = 3


def section(results: Results) -> Section:
    """Two figures of the mean mode, a table of both modes, a column for each noise; the headline is the worst."""
    shown = common.with_metrics(results)
    known = {name: each for name, each in shown.items() if _clean_bits(each).value is not None}
    blocks: list[Block] = [_information(known)] if known else []
    if shown:
        blocks += [_accuracy(shown), _table(shown)]
    question = "How much information about the label survives noise?"
    headlines = {name: _headline(name, result) for name, result in shown.items()}
    return Section("Noise robustness", question, tuple(blocks), _columns(shown), headlines)


def _clean_bits(result: CheckResult, mode: str = MEAN) -> Metric:
    return result.metrics.one("information_bits", mode=mode)


def _noises(shown: Results) -> dict[str, str]:
    """Kinds of noise with their titles."""
    return {noise: title for result in shown.values() for noise, title in result.details["noises"].items()}


def _headline(name: str, result: CheckResult) -> Headline:
    """The noise with the lowest number, in the mode that the status is of."""
    own = {title: found[name] for title, found in _columns({name: result}, common.status_mode(result)).items()}
    title = min(own, key=lambda title: own[title].value or 0.0)
    return common.headline(own[title], title)


def _columns(shown: Results, mode: str = MEAN) -> dict[str, dict[str, Metric]]:
    """Information kept, or accuracy if it is not measured; other ranges make other columns."""
    columns: dict[str, dict[str, Metric]] = {}
    for noise, title in _noises(shown).items():
        for name, found in common.column(shown, "information_kept", mode=mode, noise=noise).items():
            what, number = "information kept", found
            if found.value is None:
                what, number = "accuracy", shown[name].metrics.one("accuracy", mode=mode, noise=noise)
            columns.setdefault(f"{what} under {title}, {_range(shown[name])}", {})[name] = number
    return columns


def _range(result: CheckResult) -> str:
    snr = result.details["snr"]
    return f"{snr[-1]:g} to {snr[0]:g} dB"


def _over_ratios(result: CheckResult, metric: str, noise: str) -> list[Metric]:
    """A metric of the mean mode at each ratio, in the order of ``details["snr"]``."""
    return [result.metrics.one(metric, mode=MEAN, noise=noise, snr=snr) for snr in result.details["snr"]]


def _series(shown: Results, metric: str) -> tuple[Series, ...]:
    """A line for each classifier and kind of noise, by ascending ratio; the clean image has no ratio."""
    return tuple(
        common.curve(
            f"{name} ({title})",
            result.details["snr"][::-1],
            _over_ratios(result, metric, noise)[::-1],
            style="line" if noise == "white" else "dashed",
            group=name,
        )
        for name, result in shown.items()
        for noise, title in result.details["noises"].items()
    )


def _information(shown: Results) -> Figure:
    entropies = {round(result.details["label_entropy_bits"], 3) for result in shown.values()}
    marks = tuple(Mark("H(Y), the maximum", y=entropy) for entropy in entropies) if len(entropies) == 1 else ()
    y_label = "I(T;Y) of predictions and labels, in bits"
    reading = f"{_kept(shown)} {_returned(shown)}".strip()
    return Figure("Information under noise", reading, _AXIS, y_label, _series(shown, "information_bits"), marks)


def _kept(shown: Results) -> str:
    """The information that each classifier keeps, the most first."""
    ranges = list(dict.fromkeys(_range(result) for result in shown.values()))
    parts = []
    for noise, title in _noises(shown).items():
        kept = common.column(shown, "information_kept", mode=MEAN, noise=noise)
        if kept:
            parts.append(f"{common.ranking({name: each.value or 0.0 for name, each in kept.items()})} under {title}")
    sentence = f"Fraction of the labels' information that is kept, averaged over {listed(ranges)}: {'; '.join(parts)}."
    return sentence if len(ranges) == 1 else f"{sentence} Averages over different ranges are not comparable."


def _returned(shown: Results) -> str:
    """The curves in which information returns as adversarial noise grows, and the reason."""
    lines = [
        f"{name} under {title}" if len(shown) > 1 else title
        for name, result in shown.items()
        for noise, title in result.details["noises"].items()
        if noise != "white"
        and _rise([_clean_bits(result), *_over_ratios(result, "information_bits", noise)])
        > _RETURNED * result.details["label_entropy_bits"]
    ]
    if not lines:
        return ""
    which = listed(lines) if len(lines) <= _NAMED else f"{len(lines)} of the lines"
    return (
        f"If information returns as noise grows ({which}), wrong predictions reveal the label, since the noise was "
        "chosen against it; the averages exclude this."
    )


def _rise(metrics: Sequence[Metric]) -> float:
    """By how much information exceeds its minimum at a higher ratio."""
    values = [metric.value or 0.0 for metric in metrics]
    return max(value - min(values[: number + 1]) for number, value in enumerate(values))


def _accuracy(shown: Results) -> Figure:
    parts = []
    for noise, title in _noises(shown).items():
        having = {name: result for name, result in shown.items() if noise in result.details["noises"]}
        last = {name: _over_ratios(result, "accuracy", noise)[-1] for name, result in having.items()}
        parts.append(common.superlative(last, f"accuracy at the lowest ratio under {title}", "lowest"))
    reading = f"{'. '.join(parts)}. "
    reading += "Steps along the gradient can make every prediction wrong, white noise only random."
    series = _series(shown, "accuracy")
    return Figure("Accuracy under the same noise", reading, _AXIS, "accuracy", series, y_range=(0.0, 1.0))


def _table(shown: Results) -> Table:
    cells: dict[str, Callable[[CheckResult, str], common.Value]] = {
        "H(Y), bits": lambda result, _: round(result.details["label_entropy_bits"], 3),
        "I(T;Y), clean": common.measured("information_bits"),
    }
    for metric, what in _AVERAGES.items():
        for noise, title in _noises(shown).items():
            cells[what.format(title)] = common.measured(metric, noise=noise)
    cells["passes per image"] = lambda result, mode: round(
        sum(sum(counts) for counts in result.details["passes"][mode].values()) / _clean_bits(result, mode).n
    )
    reading = "Averages over the ratios. At each ratio, information is the least that is transmitted there and under "
    reading += "all smaller noise, and an image counts as right if it is right there and under all smaller noise."
    return common.table("Averages", reading, shown, cells)
