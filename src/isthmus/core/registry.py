"""Names of components, found from file names without importing the files.

A component is a module with a frozen ``Config`` (a :class:`isthmus.core.config.Component`) and one function. Its file
name is its name: ``objectives/ceb.py`` is the objective ``ceb``. Other packages add theirs through the entry-point
groups ``isthmus.data``, ``isthmus.models``, ``isthmus.objectives``, ``isthmus.attacks``, ``isthmus.checks``,
``isthmus.shifts`` and ``isthmus.training.callbacks``; each entry names a module of the same shape.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from isthmus.core.errors import ConfigError, foreign_code, one_line, unknown

KINDS = {
    "data": "dataset",
    "backbones": "backbone",
    "objectives": "objective",
    "attacks": "attack",
    "checks": "check",
    "shifts": "shifted test set",
    "callbacks": "callback",
}
_PLACES = {
    "backbones": "models.backbones",
    "callbacks": "training.callbacks",
    "shifts": "data.shift",
}  # where that is not a room of the kind's own name
_DEFINES_CONFIG = re.compile(r"^class Config\b", re.MULTILINE)


@cache
def _own(kind: str) -> frozenset[str]:
    # A room also holds helpers (attacks/engine/scheduler.py); only files that define a Config are components. Reading
    # the text costs microseconds where importing it would cost a torch.
    room = Path(__file__).parent.parent.joinpath(*_PLACES.get(kind, kind).split("."))
    return frozenset(f.stem for f in room.glob("*.py") if _DEFINES_CONFIG.search(f.read_text("utf-8")))


@cache
def _foreign(kind: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"isthmus.{kind}")}


def names(kind: str) -> list[str]:
    """All component names of a kind (a key of :data:`KINDS`), sorted; imports none of them."""
    return sorted(_own(kind) | set(_foreign(kind)))


def find(kind: str, name: str) -> ModuleType:
    """Import and return the module of one component.

    Raises:
        ConfigError: there is no such name (with a suggestion), or the module has no ``Config``.
    """
    if name in _own(kind):
        return importlib.import_module(f"isthmus.{_PLACES.get(kind, kind)}.{name}")
    if name not in _foreign(kind):
        raise ConfigError(unknown(KINDS[kind], name, names(kind)))
    entry = _foreign(kind)[name]
    try:
        module = entry.load()
    except Exception as error:  # somebody else's module may fail with anything
        owner = entry.dist.name if entry.dist is not None else entry.module
        where = f", raised in {place}" if (place := foreign_code(error)) else ""
        raise ConfigError(
            f"The {KINDS[kind]} {name!r} is of the package {owner}, whose module {entry.value!r} cannot be imported: "
            f"{type(error).__name__}: {one_line(error)}{where}."
        ) from error
    if not hasattr(module, "Config"):
        raise ConfigError(
            f"The {KINDS[kind]} {name!r} comes from {entry.value!r}, which defines no Config; "
            "an entry point must name a module with a Config and the function of its kind."
        )
    assert isinstance(module, ModuleType)
    return module
