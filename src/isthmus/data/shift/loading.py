"""From a name to a test set under shift: where its files are, and labels in the order of the classifier's classes."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Int64
from pydantic import Field
from torch import Tensor

from isthmus.core import provenance, registry
from isthmus.core.config import Component, component
from isthmus.core.errors import DataError
from isthmus.data.loading import Limit
from isthmus.data.shift.testset import Shifted

logger = logging.getLogger(__name__)


class ShiftConfig(Component):
    """Options of every test set under shift.

    Attributes:
        path: the folder with the published files; by default the set's own place in ``ISTHMUS_DATA``.
        limit: test on at most that many images, the first of a fixed shuffle in which classes take turns
            (:meth:`isthmus.data.shift.testset.Shifted.first`).
    """

    path: Annotated[str, Field(min_length=1)] | None = None
    limit: Limit = None


@dataclass(frozen=True)
class Published:
    """Where a set is published.

    Attributes:
        title: the field's name of the set.
        place: its folder below ``ISTHMUS_DATA``.
        get: how to fill that folder, a sentence with MIRROR for the value of ``ISTHMUS_DATA``.
    """

    title: str
    place: str
    get: str

    @property
    def advice(self) -> str:
        """What to do where a file is missing."""
        return (
            f"{self.get} Then set ISTHMUS_DATA=MIRROR; or give the folder that holds the files as the option path "
            f"(default: ISTHMUS_DATA/{self.place})."
        )


def load(given: Component | str | Mapping[str, Any], classes: Sequence[str] | None = None) -> Shifted:
    """Load a test set under shift by name (``"cifar10_1:v4"``), by a mapping with options, or by config.

    Args:
        given: such as ``{"name": "cifar10_c", "corruption": "fog", "severity": 3}``.
        classes: names of the classifier's classes in the order of its logits: ``data.classes`` of what it was trained
            on. CIFAR-10's own order where None; the ImageNet sets need them.

    Raises:
        ConfigError: an unknown name or option.
        DataError: the files are missing (says how to get them), damaged or of another form, or the classes do not fit.
    """
    config = component("shifts", given)
    names = None if classes is None else tuple(classes)
    if names is not None and (len(set(names)) != len(names) or len(names) < 2):
        raise DataError(f"classes must be at least two different names, one for each logit; got {len(names)} names.")
    shifted = registry.find("shifts", config.name).load(config, names)
    if not isinstance(shifted, Shifted):
        raise DataError(f"load() of the shifted test set {config.name!r} must return Shifted; got {type(shifted)}.")
    provenance.use(shifted.name, shifted.examples)
    return shifted


def located(config: ShiftConfig, published: Published) -> Path:
    """The folder with a set's files.

    Raises:
        DataError: no folder is named, or there is none; says how to get the files.
    """
    mirror = os.environ.get("ISTHMUS_DATA")
    if config.path is None and not mirror:
        raise DataError(f"Where are the files of {published.title}? {published.advice}")
    folder = Path(config.path).expanduser() if config.path else Path(mirror or "").expanduser() / published.place
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder} with {published.title}. {published.advice}")
    return folder


def relabelled(
    labels: Int64[Tensor, " n"], own: Sequence[str], classes: Sequence[str] | None, title: str
) -> tuple[Int64[Tensor, " n"], tuple[str, ...]]:
    """Labels of a set with classes ``own`` as positions in the classifier's ``classes``, and these classes.

    Raises:
        DataError: the classifier lacks one of the set's classes.
    """
    if classes is None:
        return labels, tuple(own)
    missing = [name for name in own if name not in classes]
    if missing:
        raise DataError(
            f"The classifier's classes ({listed(classes)}) lack {len(missing)} of {title}: {listed(missing)}. Give "
            f"`classes` in the order of its logits, by the names {listed(own)}."
        )
    return torch.tensor([classes.index(name) for name in own])[labels], tuple(classes)


def listed(names: Sequence[str], most: int = 10) -> str:
    """Some names, and how many more there are."""
    more = f", … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def limited(shifted: Shifted, config: ShiftConfig) -> Shifted:
    """Apply ``limit``, and say where the set was not complete before that."""
    if len(shifted) != shifted.published:
        logger.warning("%s has %d of %d published images.", shifted.name, len(shifted), shifted.published)
    return shifted.first(config.limit)
