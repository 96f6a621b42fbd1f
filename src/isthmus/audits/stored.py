"""What a folder already holds of an audit: results that another run would only repeat are not made again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.audits import classifier
from isthmus.core import files, results
from isthmus.core.config import Component
from isthmus.core.errors import FileError
from isthmus.core.results import AuditRecord
from isthmus.core.types import CheckResult, Status

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """What a folder holds about the model, data and settings that are asked about now."""

    record: AuditRecord | None
    results: Mapping[str, CheckResult]

    def answering(self, check: Component, record: AuditRecord) -> CheckResult | None:
        """The result that another run of a check would only repeat: same options, made by the same code, and where it
        looked at what the classifier was trained on, of the same training examples."""
        result = self.results.get(check.name)
        if result is None or result.status is Status.ERROR or result.options != check.plain():
            return None
        if result.details.get("trained_on", record.trained_on) != record.trained_on:
            return None
        return result if _code(result.provenance) == _code(record.provenance) else None


def stored(folder: Path, record: AuditRecord, asked: set[str]) -> Stored:
    """What the folder holds about the same model, data and settings; anything else there is moved aside.

    Damaged results are left out: their checks run again.
    """
    if not files.exists(folder / "audit.json"):
        return Stored(None, {})
    try:
        old = results.load_record(folder)
    except FileError as error:
        log.warning("%s", error)
        old = None
    if old is None or _difference(old, record):
        aside = _move_aside(folder)
        if old is not None:
            log.warning(
                "%s held an audit of another %s; it is now in %s, and `isthmus report %s` draws its page.",
                folder,
                _difference(old, record),
                aside,
                aside,
            )
        return Stored(None, {})
    found = {}
    for name in asked.intersection(results.saved_checks(folder)):
        try:
            found[name] = results.load_result(folder, name)
        except FileError as error:
            log.warning("%s It is run again.", error)
    return Stored(old, found)


_EXACT = {
    "model_hash": "model",
    "structure_hash": "model",
    "data_hash": "choice of images",
    "seed": "seed",
    "settings": "threat, budget or other setting",
}


def _difference(old: AuditRecord, new: AuditRecord) -> str:
    """In what the question of a stored audit is another one; empty where it is the same."""
    named = [words for name, words in _EXACT.items() if getattr(old, name) != getattr(new, name)]
    if not named and not classifier.same_answers(old.answers, new.answers):
        named = ["model"]
    return ", ".join(dict.fromkeys(named))


def _code(made: Mapping[str, Any]) -> tuple[Any, Any]:
    """Version and commit of isthmus that made something; a checkout with changes is known by its ``+`` alone."""
    packages = made.get("packages")
    return packages.get("isthmus") if isinstance(packages, Mapping) else None, made.get("commit")


def _move_aside(folder: Path) -> Path:
    number = 1
    while (aside := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    folder.rename(aside)
    return aside
