"""Names of studies, found without importing them, and reading stored records. Nothing here imports torch."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.core import files
from isthmus.core.errors import ConfigError, FileError, unknown

if TYPE_CHECKING:
    from isthmus.studies.old.adapter import OldStudy
    from isthmus.studies.old.study import StudyRecord as OldRecord
    from isthmus.studies.study import Study, StudyRecord

    AnyStudy = Study | OldStudy
    AnyRecord = StudyRecord | OldRecord

_HERE = Path(__file__).parent
_DEFINES_CONFIG = re.compile(r"^class Config\b", re.MULTILINE)
_DEFINES_STUDIES = re.compile(r"^STUDIES\b", re.MULTILINE)


@cache
def _files() -> dict[str, Path]:
    """Name -> file that defines the study, with ``name="paper/study"`` where it is one of several."""
    found: dict[str, Path] = {}
    for path in sorted(_HERE.glob("*/*.py")):
        text, paper = path.read_text("utf-8"), path.parent.name.replace("_", "-")
        if _DEFINES_STUDIES.search(text):
            found |= dict.fromkeys(re.findall(rf'\bname="({paper}/[a-z0-9-]+)"', text), path)
        elif _DEFINES_CONFIG.search(text):
            found[f"{paper}/{path.stem.replace('_', '-')}"] = path
    return found


def names() -> list[str]:
    """All studies, such as "closer-look/figure-1": by paper, then by number."""
    return sorted(
        _files(), key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    )


def question(name: str) -> str:
    """What a study asks, in one line."""
    return find(name).question


def find(name: str) -> AnyStudy:
    """One study.

    Raises:
        ConfigError: there is no such study; the message suggests one.
    """
    if name not in _files():
        raise ConfigError(unknown("study", name, names()))
    path = _files()[name]
    place, text = f"isthmus.studies.{path.parent.name}.{path.stem}", path.read_text("utf-8")
    if not _DEFINES_STUDIES.search(text):
        from isthmus.studies.old.adapter import OldStudy

        return OldStudy(name, place, (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0])
    studies: dict[str, Study] = {study.name: study for study in importlib.import_module(place).STUDIES}
    return studies[name]


def load(path: Path) -> tuple[AnyStudy, AnyRecord]:
    """Read a stored record, with the study it is of.

    Raises:
        FileError: it is no record of a study, or of another format.
        ConfigError: it is of a study that does not exist.
    """
    content = files.read_json(path)
    name = content.get("study") if isinstance(content, dict) else None
    if not isinstance(name, str):
        raise FileError(f"{path} is no record of a study (study: missing); run the study again.")
    study = find(name)
    return study, study.load(path)
