"""Stored results of an audit, and whether they can be reused."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from isthmus.audits import classifier
from isthmus.core import files, registry, results
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError, FileError
from isthmus.core.results import AuditRecord
from isthmus.core.types import CheckResult, Status

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """Stored results about the same model, data and settings."""

    record: AuditRecord | None = None
    results: Mapping[str, CheckResult] = field(default_factory=dict)

    def reusable(self, check: Component, record: AuditRecord) -> CheckResult | None:
        """The stored result of a check, if another run would repeat it.

        It has the same options, was made by the same version of the code and, if it depends on the training examples,
        on the same ones.
        """
        result = self.results.get(check.name)
        if result is None or result.status is Status.ERROR or result.options != check.plain():
            return None
        if result.details.get("trained_on", record.trained_on) != record.trained_on:
            return None
        return result if _code(result.provenance) == _code(record.provenance) else None


def stored(folder: Path, record: AuditRecord, checks: set[str]) -> Stored:
    """Results in the folder about the same model, data and settings; anything else there is moved aside.

    Damaged results are left out: their checks run again.
    """
    if not files.exists(folder / "audit.json"):
        return Stored()
    try:
        old = results.load_record(folder)
    except FileError as error:
        log.warning("%s", error)
        old = None
    difference = _difference(old, record) if old is not None else ""
    if old is None or difference:
        aside = _move_aside(folder)
        if difference:
            moved = "%s held an audit of another %s; it is now in %s, and `isthmus report %s` draws its page."
            log.warning(moved, folder, difference, aside, aside)
        return Stored()
    found = {}
    for name in checks.intersection(results.saved_checks(folder)):
        try:
            found[name] = results.load_result(folder, name)
        except FileError as error:
            log.warning("%s It is run again.", error)
    return Stored(old, found)


def remove_users(folder: Path, checks: set[str]) -> None:
    """Remove results of other checks that use results of these, which are about to change.

    A check's ``uses`` names what it uses (:class:`isthmus.checks.check.Check`).
    """
    for name in set(results.saved_checks(folder)) - checks:
        used: set[str] = set()
        with suppress(ConfigError):  # of another package, which is no longer installed
            used = checks.intersection(getattr(registry.load("checks", name), "uses", ()))
        if used:
            for path in (folder / f"{name}.json", folder / f"{name}.npz"):
                path.unlink(missing_ok=True)
            log.warning("The result of %s in %s was removed, since %s runs again: run it again.", name, folder, *used)


_EXACT = {
    "model_hash": "model",
    "structure_hash": "model",
    "data_hash": "choice of images",
    "seed": "seed",
    "settings": "threat, budget or other setting",
}


def _difference(old: AuditRecord, new: AuditRecord) -> str:
    """How a stored audit differs from a new one; "" if it does not."""
    named = [words for name, words in _EXACT.items() if getattr(old, name) != getattr(new, name)]
    if not named and not classifier.same_answers(old.answers, new.answers):
        named = ["model"]
    return ", ".join(dict.fromkeys(named))


def _code(made: Mapping[str, Any]) -> tuple[Any, Any]:
    """Version and commit of isthmus that made a result; a checkout with changes has only a ``+``."""
    packages = made.get("packages")
    return packages.get("isthmus") if isinstance(packages, Mapping) else None, made.get("commit")


def _move_aside(folder: Path) -> Path:
    names = (folder.with_name(f"{folder.name}-{number}") for number in count(1))
    return folder.rename(next(path for path in names if not path.exists()))
