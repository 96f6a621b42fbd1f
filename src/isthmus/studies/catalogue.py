"""Names of studies, found without importing them, and stored records; none of it imports torch."""

from __future__ import annotations

import importlib
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.core.errors import ConfigError, unknown

if TYPE_CHECKING:
    from isthmus.studies.study import Study, StudyRecord

_HERE = Path(__file__).parent
_DEFINES_STUDIES = re.compile(r"^STUDIES\b", re.MULTILINE)


@cache
def _files() -> dict[str, Path]:
    """Name -> file that defines the study, with ``name="paper/study"``."""
    found: dict[str, Path] = {}
    for path in sorted(_HERE.glob("*/*.py")):
        text, paper = path.read_text("utf-8"), path.parent.name.replace("_", "-")
        if _DEFINES_STUDIES.search(text):
            found |= dict.fromkeys(re.findall(rf'\bname="({paper}/[a-z0-9-]+)"', text), path)
    return found


def names() -> list[str]:
    """All studies, such as "closer-look/figure-1": by paper, then by number."""
    return sorted(
        _files(), key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    )


def question(name: str) -> str:
    """The question of a study, in one line."""
    return find(name).question


def find(name: str) -> Study:
    """The study with this name.

    Raises:
        ConfigError: there is no such study; the message suggests one.
    """
    if name not in _files():
        raise ConfigError(unknown("study", name, names()))
    path = _files()[name]
    module = importlib.import_module(f"isthmus.studies.{path.parent.name}.{path.stem}")
    studies: dict[str, Study] = {study.name: study for study in module.STUDIES}
    return studies[name]


def load(path: Path) -> tuple[Study, StudyRecord]:
    """Read a stored record, with its study.

    Raises:
        FileError: it is no record of a study, or of another format.
        ConfigError: there is no such study.
    """
    from isthmus.studies.study import StudyRecord

    record = StudyRecord.load(path)
    return find(record.study), record
