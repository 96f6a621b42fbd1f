"""Names and options of images that a classifier was not made for: ours, any data set, any attack."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from isthmus.core import registry
from isthmus.core.config import Component, component, validate
from isthmus.core.errors import ConfigError, unknown

ATTACKS = ("cw", "ddn", "fab", "fmn")
"""Attacks that look for the smallest ℓ2 perturbation. One that looks for any within reach ends far away."""


class UniformNoise(Component):
    """Every pixel from U(0, 1); as many images as are audited."""

    name: Literal["uniform_noise"] = "uniform_noise"


class VerticalFlip(Component):
    """The audited images upside down: the hardest of the sets of Fischer 2020, after Alemi et al. 2018."""

    name: Literal["vertical_flip"] = "vertical_flip"


class Folder(Component):
    """Image files anywhere below a folder, in order of their paths; classes do not matter.

    At most as many as are audited, evenly spread. Each is cut to the audited images' proportions around its centre and
    resampled to their size.
    """

    argument: ClassVar[str | None] = "path"
    name: Literal["folder"] = "folder"
    path: Annotated[str, Field(min_length=1)]


_OWN: dict[str, type[Component]] = {"uniform_noise": UniformNoise, "vertical_flip": VerticalFlip, "folder": Folder}


def configured(given: object) -> Component:
    """The config of an out-distribution, from ``"vertical_flip"``, ``"mnist"``, ``"folder:PATH"``, ``"cw:100"`` or a
    mapping with options.

    Raises:
        ConfigError: it is neither one of ours nor a data set nor such an attack, or an option does not fit.
    """
    if isinstance(given, Component):
        return given
    options = given if isinstance(given, Mapping) else {"name": given}
    name, colon, argument = str(options.get("name")).partition(":")
    if own := _OWN.get(name):
        if colon and own.argument is None:
            raise ConfigError(f"The out-distribution {name!r} takes nothing after a colon; got {given!r}.")
        after = {str(own.argument): argument} if colon else {}
        return validate(own, {**options, "name": name, **after}, where=f"out-distribution {name}")
    if name in ATTACKS:
        return component("attacks", given)
    if name in registry.names("data"):
        return component("data", given)
    known = {*_OWN, *registry.names("data"), *ATTACKS}
    raise ConfigError(unknown("out-distribution", name if "name" in options else given, known))


OutConfig = SerializeAsAny[Annotated[Component, BeforeValidator(configured)]]


def named(outs: Sequence[Component]) -> list[str]:
    """A name for each, to be part of a metric's: a folder's is its own, and the second of a name ends in ``_2``."""
    seen: Counter[str] = Counter()
    names = []
    for out in outs:
        given = f"folder_{Path(out.path).resolve().name}" if isinstance(out, Folder) else out.name
        name = re.sub(r"[^A-Za-z0-9]+", "_", given).strip("_").lower()
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names
