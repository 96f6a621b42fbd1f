"""The page's first lines: what was audited and how it went, in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from isthmus.core.types import Metric, Section, Status
from isthmus.report import numbers
from isthmus.report.subjects import Subject

_OUTCOME = {
    Status.PASS: "passed",
    Status.WARN: "gave a warning",
    Status.FAIL: "failed",
    Status.SKIPPED: "{} skipped",
    Status.ERROR: "broke off with an error",
}

_VERDICTS = {
    "broken": "is broken",
    "overstated": "is overstated",
    "undecided": "is undecided",
    "holds": "holds",
}


def title(subjects: Sequence[Subject]) -> str:
    """What the page is about: "Five classifiers of digits, audited"."""
    data = numbers.listing(list(dict.fromkeys(subject.record.data for subject in subjects)))
    if len(subjects) == 1:
        return f"{subjects[0].name} on {data}, audited"
    words = numbers.count(len(subjects), "classifier")
    return f"{words[0].upper()}{words[1:]} on {data}, audited"


def lead(subjects: Sequence[Subject]) -> list[str]:
    """Whether the robustness is real, on what images, and how the checks ended."""
    return [*_verdicts(subjects), _images(subjects), _outcomes(subjects)]


def _verdicts(subjects: Sequence[Subject]) -> list[str]:
    """The verdicts, where there are any: "Robust accuracy is overstated for a, and holds for b and c."."""
    given: dict[str, list[str]] = {}
    for subject in subjects:
        result = subject.results.get("diagnosis")
        if result is not None and "verdict" in result.details:
            given.setdefault(str(result.details["verdict"]["status"]), []).append(subject.name)
    if not given:
        return []
    if len(subjects) == 1:
        return [f"Its robust accuracy {_VERDICTS[next(iter(given))]}."]
    parts = [f"{said} for {numbers.listing(given[word])}" for word, said in _VERDICTS.items() if word in given]
    return [f"Robust accuracy {numbers.listing(parts)}."]


def cautions(subjects: Sequence[Subject]) -> list[str]:
    """What keeps these classifiers' numbers from being taken as they stand; empty where nothing does."""
    found = []
    if collapsed := [subject for subject in subjects if subject.collapsed]:
        why = " ".join(dict.fromkeys(subject.collapse for subject in collapsed))
        found.append(
            f"{numbers.listing([subject.name for subject in collapsed])} collapsed in training: such numbers, under "
            f"attack too, say nothing about the objective. {why}"
        )
    if broken := _broken(subjects):
        found.append(f"Not everything was measured: {numbers.listing(broken)} broke off with an error.")
    if len({subject.record.data_hash for subject in subjects}) > 1:
        found.append("They were not audited on the same images, so differences between them may come from the images.")
    if differing := _differing_settings(subjects):
        found.append(f"They were audited with different settings ({', '.join(differing)}); compare with care.")
    return found


def _differing_settings(subjects: Sequence[Subject]) -> list[str]:
    """Names of the audits' settings, and of their checks' options ("robustness.levels"), that are not the same.

    What one classifier has no use for, such as draws where it draws nothing, is no difference.
    """
    values: dict[str, list[Any]] = {}
    for subject in subjects:
        for key, value in subject.record.settings.items():
            values.setdefault(key, []).append(value)
        for check, result in subject.results.items():
            for key, value in result.options.items():
                values.setdefault(f"{check}.{key}", []).append(value)
    return sorted(key for key, found in values.items() if any(value != found[0] for value in found))


def _broken(subjects: Sequence[Subject]) -> list[str]:
    """Checks that ended with an error: "robustness of vib-rho0"."""
    return [
        f"{check} of {subject.name}"
        for subject in subjects
        for check, result in subject.results.items()
        if result.status is Status.ERROR
    ]


def _images(subjects: Sequence[Subject]) -> str:
    sizes = sorted({subject.record.n for subject in subjects})
    seeds = sorted({subject.record.seed for subject in subjects})
    n = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    seed = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {numbers.listing([str(s) for s in seeds])}"
    if len(subjects) == 1:
        return f"Audited on {n} images with {seed}."
    same = len({subject.record.data_hash for subject in subjects}) == 1
    return f"Each was audited on {'the same ' if same else ''}{n} images with {seed}."


def _outcomes(subjects: Sequence[Subject]) -> str:
    tally = Counter(result.status for subject in subjects for result in subject.results.values())
    total = sum(tally.values())
    parts = []
    for status, words in _OUTCOME.items():
        if tally[status]:
            verb = words.format("was" if tally[status] == 1 else "were")
            parts.append(f"{tally[status]} {verb}")
    return f"Of {total} checks, {numbers.listing(parts)}." if total > 1 else f"The one check {parts[0][2:]}."


def ranges(sections: Sequence[Section], of: int) -> list[str]:
    """The spread of the first column of the first two checks that have one; ``of`` classifiers are on the page."""
    firsts = [next(iter(section.columns.items())) for section in sections if section.columns]
    found = []
    for name, metrics in firsts[:2]:
        measured = {who: m for who, m in metrics.items() if m.value is not None and not math.isnan(m.value)}
        if measured:
            found.append(_range(name[0].upper() + name[1:], measured, of))
    return found


def _ties(metrics: dict[str, Metric], end: str) -> str:
    """All whose value is shown as this one's; the interval is the first one's where theirs differ."""
    return numbers.listing(
        [who for who in metrics if numbers.value_text(metrics[who]) == numbers.value_text(metrics[end])]
    )


def _range(name: str, metrics: dict[str, Metric], of: int) -> str:
    ranked = sorted(metrics, key=lambda who: metrics[who].value or 0.0)
    low, high = ranked[0], ranked[-1]
    first, last = numbers.in_words(metrics[low]), numbers.in_words(metrics[high])
    if numbers.value_text(metrics[low]) != numbers.value_text(metrics[high]):
        lowest, highest = (_ties(metrics, end) for end in (low, high))
        return f"{name}: from {first} for {lowest} to {last} for {highest}."
    if of == 1:
        return f"{name}: {first}."
    alike = all(metric == metrics[low] for metric in metrics.values())
    whom = "each of them" if len(metrics) == of else numbers.listing(list(metrics))
    return f"{name}: {first if alike else numbers.value_text(metrics[low])} for {whom}."
