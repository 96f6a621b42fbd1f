"""Names of studies, found from file names without importing the files."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from pathlib import Path
from types import ModuleType

from isthmus.core.errors import ConfigError, unknown

_HERE = Path(__file__).parent
_DEFINES_CONFIG = re.compile(r"^class Config\b", re.MULTILINE)


@cache
def _files() -> dict[str, Path]:
    # a paper's folder also holds what its studies share; only files that define a Config are studies
    found = (path for path in _HERE.glob("*/*.py") if _DEFINES_CONFIG.search(path.read_text("utf-8")))
    return {f"{path.parent.name}/{path.stem}".replace("_", "-"): path for path in found}


def names() -> list[str]:
    """All studies, such as "closer-look/figure-1": by paper, then by number."""
    return sorted(
        _files(), key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    )


def question(name: str) -> str:
    """What a study asks: the first line of its file, read without running it."""
    text = ast.get_docstring(ast.parse(_path(name).read_text("utf-8"))) or ""
    return text.partition("\n")[0]


def find(name: str) -> ModuleType:
    """Import and return the module of one study.

    Raises:
        ConfigError: there is no such study; the message suggests one.
    """
    path = _path(name)
    return importlib.import_module(f"isthmus.studies.{path.parent.name}.{path.stem}")


def _path(name: str) -> Path:
    if name not in _files():
        raise ConfigError(unknown("study", name, names()))
    return _files()[name]
