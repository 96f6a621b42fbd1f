"""Component classes by name, found from file names without importing other components.

A component is one frozen class, a subclass of :class:`isthmus.core.config.Component`. Its fields are its options and
its methods are its behaviour. Its file is named like the component: ``objectives/ceb.py`` holds the objective ``ceb``,
a class with ``name: Literal["ceb"] = "ceb"``. Other packages add components in one of two ways: by an entry point of
the group ``isthmus.<kind>``, for every kind in :data:`KINDS`, or by ``module:Name`` in place of the component's name.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from isthmus.core.errors import ConfigError, one_line, third_party_code, unknown

KINDS = {
    "data": "dataset",
    "backbones": "backbone",
    "objectives": "objective",
    "attacks": "attack",
    "checks": "check",
    "ood_scores": "OOD score",
    "shifts": "shifted test set",
    "callbacks": "callback",
    "loggers": "logger",
}
_FOLDERS = {
    "backbones": "models.backbones",
    "callbacks": "training.callbacks",
    "loggers": "training.loggers",
    "ood_scores": "checks.scores",
    "shifts": "data.shift",
}  # where it differs from the kind
PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""The form ``module:Name`` of a component's name."""


@cache
def _own(kind: str) -> frozenset[str]:
    # The folder also holds helpers. Reading the text costs microseconds; importing it would cost a torch.
    folder = Path(__file__).parent.parent.joinpath(*_FOLDERS.get(kind, kind).split("."))
    texts = {file.stem: file.read_text("utf-8") for file in folder.glob("*.py")}
    return frozenset(name for name, text in texts.items() if f'name: Literal["{name}"]' in text)


@cache
def _registered(kind: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"isthmus.{kind}")}


def names(kind: str) -> list[str]:
    """Names of all components of a kind (a key of :data:`KINDS`), sorted. Imports none of them."""
    return sorted(_own(kind) | set(_registered(kind)))


def is_path(kind: str, name: str) -> bool:
    """Whether ``name`` has the form ``module:Name`` and is not the short form of a known component."""
    return PATH.fullmatch(name) is not None and name.partition(":")[0] not in names(kind)


def import_module(name: str) -> ModuleType:
    """Import a module of the user; the current folder is importable, as for ``python -m``."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(name)


def is_function(kind: str, name: str) -> bool:
    """Whether ``name`` is the ``module:function`` of something that can be called and is no class."""
    if not is_path(kind, name):
        return False
    module, _, attribute = name.partition(":")
    found = getattr(_imported(kind, name, lambda: import_module(module)), attribute, None)
    return callable(found) and not isinstance(found, type)


def load(kind: str, name: str) -> type[Any]:
    """Import one component and return its class.

    Args:
        kind: a key of :data:`KINDS`.
        name: a name in :func:`names`, or ``module:Name``.

    Raises:
        ConfigError: the name is unknown (with a suggestion), the import fails, or the target is no component class.
    """
    if is_path(kind, name):
        module, _, attribute = name.partition(":")
        imported = _imported(kind, name, lambda: import_module(module))
        if not hasattr(imported, attribute):
            raise ConfigError(f"There is no {KINDS[kind]} {name!r}: the module {module} has no {attribute!r}.")
        found = getattr(imported, attribute)
    elif name in _own(kind):
        found = importlib.import_module(f"isthmus.{_FOLDERS.get(kind, kind)}.{name}")
    elif name in _registered(kind):
        found = _imported(kind, name, _registered(kind)[name].load)
    else:
        raise ConfigError(unknown(KINDS[kind], name, names(kind)))
    chosen = _class_in(found, name) if isinstance(found, ModuleType) else found
    if not _is_component(chosen):
        raise ConfigError(
            f"The {KINDS[kind]} {name!r} is no component: it must name a subclass of isthmus.core.config.Component, or "
            "a module with one."
        )
    return cast("type[Any]", chosen)


def lazy_attribute(package: str, modules: Mapping[str, str], name: str) -> Any:
    """Import a public class of a package on first use, for the package's ``__getattr__``.

    Args:
        package: ``__name__`` of the package.
        modules: the module of each public class, relative to the package.
        name: the attribute.

    Raises:
        AttributeError: the package has no such class.
    """
    if name not in modules:
        raise AttributeError(f"module {package!r} has no attribute {name!r}; it has: {', '.join(modules)}")
    value = getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
    setattr(sys.modules[package], name, value)
    return value


def _imported(kind: str, name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # a module of another package may fail with anything
        entry = _registered(kind).get(name)
        owner = f" of the package {entry.dist.name if entry.dist is not None else entry.module}" if entry else ""
        target = entry.value if entry else name
        where = f", raised in {place}" if (place := third_party_code(error)) else ""
        raise ConfigError(
            f"The {KINDS[kind]} {name!r}{owner} cannot be imported from {target!r}: "
            f"{type(error).__name__}: {one_line(error)}{where}."
        ) from error


def _class_in(module: ModuleType, name: str) -> object:
    """The component class of this name in a module, or the only component class that the module defines."""
    classes = [value for value in vars(module).values() if _is_component(value)]
    named = [each for each in classes if each.model_fields["name"].default == name]
    defined = [each for each in classes if each.__module__ == module.__name__]
    return named[0] if named else defined[0] if len(defined) == 1 else None


def _is_component(value: object) -> bool:
    # core.config imports this module, so Component itself cannot be imported here
    return isinstance(value, type) and "name" in getattr(value, "model_fields", {})
