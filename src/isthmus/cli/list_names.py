"""``isthmus list``."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from isthmus.cli.options import SUITES, argument, complete
from isthmus.cli.output import echo_wrapped
from isthmus.core import registry
from isthmus.core.errors import ConfigError, unknown
from isthmus.core.training_options import AUGMENTATIONS
from isthmus.studies import catalogue

Entry = tuple[str, str, str]
"""Name, what it is, and its options with their defaults."""

_OTHERS: Mapping[str, Callable[[], list[str]]] = {
    "suites": lambda: list(SUITES),
    "augmentations": lambda: list(AUGMENTATIONS),
    "studies": catalogue.names,
}
"""Kinds of names that are no components."""

_ABOUT_SUITES = {
    "standard": "AutoAttack's attacks and budgets (Croce & Hein 2020)",
    "standard-l1": "AutoAttack's in ℓ1; standard means this for a threat in ℓ1",
    "fast": "A race between directions: nearly the robust accuracy of standard for a fraction of its passes",
    "ib": "The attacks of Korshunova et al. 2021 on bottlenecks",
    "rand": "AutoAttack's for random models",
}

KINDS = (*registry.KINDS, *_OTHERS)


def list_names(
    kind: Annotated[
        str | None,
        argument(
            f"{', '.join(KINDS[:-1])} or {KINDS[-1]}.", "KIND", show_default=False, autocompletion=complete(*KINDS)
        ),
    ] = None,
) -> None:
    """List the names that recipes and options accept. With a kind, list what each name is, and its options."""
    if kind is not None and kind not in KINDS:
        raise ConfigError(unknown("kind", kind, KINDS))
    if kind is None:
        for each in KINDS:
            echo_wrapped(f"{each}: {', '.join(_names(each))}")
        echo_wrapped("`isthmus list KIND` shows what each is, and its options.")
        return
    entries = list(_entries(kind))
    indent = 2 + max(len(name) for name, _, _ in entries)
    for name, about, options in entries:
        echo_wrapped(f"{name:{indent}}{about}", " " * indent)
        if options:
            echo_wrapped(f"{'':{indent}}{options}", " " * indent)


def _names(kind: str) -> list[str]:
    return _OTHERS[kind]() if kind in _OTHERS else registry.names(kind)


def _entries(kind: str) -> Iterator[Entry]:
    if kind == "studies":
        return ((name, catalogue.question(name), "") for name in catalogue.names())
    if kind == "augmentations":
        return ((name, _options(options) or "no augmentation", "") for name, options in AUGMENTATIONS.items())
    if kind == "suites":
        return _suites()
    return (_component(kind, name) for name in registry.names(kind))


def _suites() -> Iterator[Entry]:
    """Each suite with its attacks and their options, in the order in which they run."""
    from isthmus.attacks import suites

    for name, attacks in suites.SUITES.items():
        yield name, _ABOUT_SUITES[name], ", ".join(map(_with_options, attacks))


def _with_options(attack: Mapping[str, Any] | str) -> str:
    if isinstance(attack, str):
        return attack
    return f"{attack['name']} ({_options({key: value for key, value in attack.items() if key != 'name'})})"


def _component(kind: str, name: str) -> Entry:
    """A component: the first paragraph of its module, and its options."""
    found = registry.load(kind, name)
    module = sys.modules[found.__module__]
    about = (inspect.getdoc(module) or inspect.getdoc(found) or "").partition("\n\n")[0]
    fields = {option: field for option, field in found.model_fields.items() if option != "name"}
    options = [
        option if field.is_required() else f"{option}={_value(field.default)}" for option, field in fields.items()
    ]
    return name, " ".join(about.replace("``", "").split()).rstrip("."), ", ".join(options)


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{option}={_value(value)}" for option, value in options.items())


def _value(value: Any) -> str:
    """A default as it is written in a recipe."""
    if isinstance(value, str):
        return str(value)
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    return value.plain() if hasattr(value, "plain") else str(value)
