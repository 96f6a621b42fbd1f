"""Suites: lists of attacks by name, and their resolution to stages.

``standard`` is AutoAttack's (Croce & Hein 2020), attack by attack at its budgets. ``rand`` is AutoAttack's for random
models. ``ib`` is what Korshunova et al. 2021 used against bottlenecks: AutoAttack's two APGD with restarts, and
MultiTargeted. ``fast`` is ours: nearly the same result for a fraction of the passes (:mod:`isthmus.attacks.race`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from isthmus.attacks.attack import Attack, Stage
from isthmus.attacks.result import CLEAN
from isthmus.core import registry
from isthmus.core.config import component
from isthmus.core.errors import ConfigError, unknown

Suite = str | Mapping[str, Any] | Attack | Stage | Iterable[str | Mapping[str, Any] | Attack | Stage]

IN_L1 = {"standard": "standard-l1"}
"""AutoAttack has other budgets in ℓ1."""

_APGD = {"name": "apgd"}
LABELS: dict[str, Mapping[str, Any]] = {
    **{f"apgd-{loss}": _APGD | {"loss": loss} for loss in ("ce", "dlr", "margin", "log_odds", "probability")},
    **{f"apgd-{loss}-t": _APGD | {"loss": loss, "targets": 9} for loss in ("ce", "dlr", "margin", "log_odds")},
    "apgd-t": _APGD | {"loss": "dlr", "targets": 9},
    "fab-t": {"name": "fab", "targets": 9},
}
"""Names of attacks with options: labels in results, and AutoAttack's names."""

STAGES = ("apgd-3x10", "apgd-3x30", "apgd-9x100", "square-nearest", "square-sample", "square-more")
"""Labels of the stages of ``fast`` that depend on the ones before."""

SUITES: dict[str, tuple[Mapping[str, Any] | str, ...]] = {
    "standard": (
        {"name": "apgd", "loss": "ce"},
        {"name": "apgd", "loss": "dlr", "targets": 9},
        {"name": "fab", "targets": 9},
        "square:5000",
    ),
    "standard-l1": (
        {"name": "apgd", "loss": "ce", "restarts": 5},
        {"name": "apgd", "loss": "dlr", "targets": 5},
        {"name": "fab", "targets": 9},
        "square:5000",
    ),
    "fast": ("race",),
    "ib": (
        {"name": "apgd", "loss": "ce", "restarts": 5},
        {"name": "apgd", "loss": "dlr", "restarts": 5},
        {"name": "multitargeted", "restarts": 10, "steps": 200},
    ),
    "rand": (
        {"name": "apgd", "loss": "ce", "eot": 20},
        {"name": "apgd", "loss": "dlr", "eot": 20},
    ),
}


def stages_of(suite: Suite, norm: str = "linf") -> tuple[Stage, ...]:
    """The stages of a suite; the second stage of a label is called ``pgd-2``, and so on.

    Args:
        norm: of the threat; AutoAttack has other budgets in ℓ1.

    Raises:
        ConfigError: no attack, an unknown one (with a suggestion), or options that do not fit.
    """
    if isinstance(suite, str):
        suite = IN_L1.get(suite, suite) if norm == "l1" else suite
    given: Sequence[Any]
    if isinstance(suite, str):
        given = SUITES.get(suite, (suite,))
    elif isinstance(suite, Attack | Stage) or (isinstance(suite, Mapping) and "name" in suite):
        given = (suite,)
    elif isinstance(suite, Iterable):
        given = list(suite)
    else:
        raise ConfigError(f"A suite is a name such as 'standard', or a list of attacks; got {suite!r}.")
    if not given or given == [CLEAN]:
        raise ConfigError(f"A suite needs at least one attack. There is: {', '.join(_names())}.")
    stages: list[Stage] = []
    seen = Counter([CLEAN])
    for stage in (each for item in given for each in _stages(item)):
        seen[stage.label] += 1
        number = seen[stage.label]
        stages.append(stage if number == 1 else stage.renamed(suffix=f"-{number}"))
    return tuple(stages)


def attack_of(given: object) -> Attack:
    """One attack from a name, a mapping with a name and options, or an object. AutoAttack's names are accepted, too.

    Raises:
        ConfigError: an unknown name (with a suggestion), or options that do not fit.
    """
    if isinstance(given, str):
        name, colon, argument = given.partition(":")
        if name in LABELS:
            given = {"name": name, "steps": argument} if colon else {"name": name}
        elif name not in registry.names("attacks") and not registry.is_path("attacks", given):
            raise ConfigError(_unknown(name))
    if isinstance(given, Mapping) and isinstance(given.get("name"), str) and given["name"] in LABELS:
        given = {**LABELS[given["name"]], **{option: value for option, value in given.items() if option != "name"}}
    found = component("attacks", given)
    if not isinstance(found, Attack):
        raise ConfigError(f"{found.name!r} is no attack: it must derive from isthmus.attacks.attack.Attack.")
    return found


def _stages(item: Any) -> Sequence[Stage]:
    if isinstance(item, Stage):
        return [item]
    if item == CLEAN:  # clean images are always evaluated
        return []
    if isinstance(item, str) and item in SUITES:
        return stages_of(item)
    return attack_of(item).stages()


def _unknown(name: str) -> str:
    base, _, number = name.rpartition("-")
    if name in STAGES:
        return f"{name!r} is a stage of the suite 'fast', which depends on the stages before it; give 'fast'."
    if number.isdigit() and base in _names():
        return (
            f"{name!r} is the label of attack number {number} called {base!r} in a result. To run {base!r} with other "
            f"options, give a mapping such as {{'name': {base!r}, ...}}, or its steps or queries as '{base}:{number}'."
        )
    if name.lower() in ("autoattack", "aa"):
        return f"There is no attack or suite {name!r}: the suite 'standard' has AutoAttack's attacks and budgets."
    return unknown("attack or suite", name, _names())


def _names() -> list[str]:
    return sorted({*SUITES, *LABELS, *registry.names("attacks")})
