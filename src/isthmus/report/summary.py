"""The page's first lines: what was audited, and the outcome in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from isthmus.core.format import count, listed
from isthmus.core.types import Status
from isthmus.report.loading import AuditedModel

_OUTCOMES = {
    Status.MEASURED: "{} measured",
    Status.PASS: "passed",
    Status.WARN: "gave a warning",
    Status.FAIL: "failed",
    Status.SKIPPED: "{} skipped",
    Status.ERROR: "ended with an error",
}


def title(models: Sequence[AuditedModel]) -> str:
    """What the page is about: "Five classifiers of digits, audited"."""
    data = listed(list(dict.fromkeys(model.record.data for model in models)))
    if len(models) == 1:
        return f"{models[0].name} on {data}, audited"
    classifiers = count(len(models), "classifier")
    return f"{classifiers[0].upper()}{classifiers[1:]} on {data}, audited"


def lead(models: Sequence[AuditedModel]) -> list[str]:
    """The images, and the outcomes of the checks."""
    return [_images(models), _outcomes(models)]


def cautions(models: Sequence[AuditedModel]) -> list[str]:
    """Reasons for caution with these classifiers' numbers; empty if there are none."""
    found = [
        f"{model.name}: {caution.text}" if len(models) > 1 else caution.text
        for model in models
        for caution in model.record.cautions
    ]
    if collapsed := [model for model in models if model.collapsed]:
        why = " ".join(dict.fromkeys(model.collapse for model in collapsed))
        found.append(
            f"{listed([model.name for model in collapsed])} collapsed in training: such numbers, under "
            f"attack too, say nothing about the objective. {why}"
        )
    if broken := _broken(models):
        found.append(f"Not everything was measured: {listed(broken)} ended with an error.")
    found += [f"The audit of {model.name} is unfinished. {model.unfinished}" for model in models if model.unfinished]
    if len({model.record.data_hash for model in models}) > 1:
        found.append("They were not audited on the same images, so differences between them may come from the images.")
    if differing := differing_settings(models):
        found.append(f"They were audited with different settings ({', '.join(differing)}); compare with caution.")
    return found


def differing_settings(models: Sequence[AuditedModel]) -> list[str]:
    """Names of the audits' settings, and of their checks' options ("robustness.levels"), that are not the same.

    A setting that a classifier does not have, such as draws without randomness, is no difference.
    """
    values: dict[str, list[Any]] = {}
    for model in models:
        for key, value in model.record.settings.items():
            values.setdefault(key, []).append(value)
        for check, result in model.results.items():
            for key, value in result.options.items():
                values.setdefault(f"{check}.{key}", []).append(value)
    return sorted(key for key, found in values.items() if any(value != found[0] for value in found))


def _broken(models: Sequence[AuditedModel]) -> list[str]:
    """Checks that ended with an error: "robustness of vib-rho0"."""
    return [
        f"{check} of {model.name}"
        for model in models
        for check, result in model.results.items()
        if result.status is Status.ERROR
    ]


def _images(models: Sequence[AuditedModel]) -> str:
    sizes = sorted({model.record.n for model in models})
    seeds = sorted({model.record.seed for model in models})
    n = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    seed = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {listed([str(s) for s in seeds])}"
    if len(models) == 1:
        return f"Audited on {n} images with {seed}."
    same = len({model.record.data_hash for model in models}) == 1
    return f"Each was audited on {'the same ' if same else ''}{n} images with {seed}."


def _outcomes(models: Sequence[AuditedModel]) -> str:
    tally = Counter(result.status for model in models for result in model.results.values())
    total = sum(tally.values())
    parts = []
    for status, words in _OUTCOMES.items():
        if tally[status]:
            verb = words.format("was" if tally[status] == 1 else "were")
            parts.append(f"{tally[status]} {verb}")
    return f"Of {total} checks, {listed(parts)}." if total > 1 else f"The one check {parts[0][2:]}."
