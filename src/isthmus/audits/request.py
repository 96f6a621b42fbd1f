"""Validate the inputs of an audit: threat, checks, images and labels, training examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.attacks.engine import inputs
from isthmus.attacks.threats import Threat, parse
from isthmus.checks.trained_on import InMemory, TrainedOn
from isthmus.core import config, files
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError, DataError, shown
from isthmus.core.format import parse_fraction
from isthmus.data.given import images_and_labels
from isthmus.data.images import ImageData, check_images, fingerprint

DEFAULT_CHECKS = ("diagnosis", "accuracy", "robustness", "calibration", "information", "ood_detection")
WITH_TRAINING = ("memorisation",)
"""Further default checks if training examples are given."""


def threat_of(given: Threat | str | None, labels: object) -> Threat:
    """A threat, also from text.

    Raises:
        ConfigError: it is neither, or stands in the place of the labels.
    """
    inputs.check_threat_given(given, labels)
    threat = parse(given) if isinstance(given, str) else given
    if not isinstance(threat, Threat):
        raise ConfigError(f"A threat is an object such as isthmus.Linf(8 / 255), or 'linf:8/255'; got {given!r}.")
    return threat


def configs(
    checks: Sequence[str | Mapping[str, Any] | Component] | None, trained_on: bool = False, passes: int | None = None
) -> list[Component]:
    """The checks as components; all of :data:`DEFAULT_CHECKS` for None.

    Args:
        trained_on: whether training examples are given; then None means :data:`WITH_TRAINING` too.
        passes: option of the check ``diagnosis``; unchanged if None.

    Raises:
        ConfigError: an unknown check or option, or a check that is given twice.
    """
    usual = (*DEFAULT_CHECKS, *WITH_TRAINING) if trained_on else DEFAULT_CHECKS
    given = usual if checks is None else checks
    if isinstance(given, Mapping | Component):
        given = [given]
    elif isinstance(given, str):
        given = [given] if given.lstrip().startswith("{") else config.split_names(given)
    elif not isinstance(given, Iterable):
        raise ConfigError(f"checks must be a list of names, mappings or components; got {shown(given)}.")
    configs = [config.component("checks", item) for item in given]
    twice = [name for name, count in Counter(check.name for check in configs).items() if count > 1]
    if twice:
        raise ConfigError(
            f"The check {twice[0]!r} is given twice, but an audit stores one result per check; leave one out, or "
            "audit again with the other options and another folder."
        )
    if passes is None:
        return configs
    check_diagnosed(configs, "passes", "limits")
    granted = {"passes": passes}
    return [
        config.component("checks", check.plain() | granted) if check.name == "diagnosis" else check for check in configs
    ]


def check_diagnosed(checks: Sequence[Component], option: str, verb: str) -> None:
    """Raise a ConfigError if an option is given that only the check ``diagnosis`` uses, which is not among these."""
    names = [check.name for check in checks]
    if "diagnosis" not in names:
        raise ConfigError(
            f"{option} {verb} the check diagnosis, which is not among the checks ({', '.join(names)}): add it, or omit "
            f"{option}."
        )


def examples(images: object, labels: object, indices: object) -> tuple[Tensor, Tensor, Tensor]:
    """Images as float32, labels and positions in the data set as int64.

    Raises:
        DataError: a wrong shape, type or range.
    """
    images, numbers = _labelled(images, labels, "")
    n = len(images)
    positions = torch.arange(n) if indices is None else inputs.integers(indices, n, "indices").cpu()
    return images.float(), numbers, positions


def training_examples(given: Any, shape: tuple[int, ...]) -> TrainedOn | None:
    """Training examples: images in [0, 1] with labels, or a split of data, which is not copied.

    Args:
        shape: channels, height and width of the audited images.

    Raises:
        DataError: something else, or images of another shape.
    """
    if given is None:
        return None
    if isinstance(given, tuple | list) and len(given) == 2:
        images, labels = _labelled(given[0], given[1], "training ")
        facts = repr(tuple(images.shape)).encode(), images.float().cpu().numpy(), labels.cpu().numpy()
        known = TrainedOn(InMemory(images, labels), files.sha256(*facts))
    elif all(hasattr(given, name) for name in ("labels", "shape", "select", "facts")):
        known = TrainedOn(given, fingerprint(given))
    else:
        hint = " Give its `train`." if isinstance(given, ImageData) else ""
        raise DataError(
            "trained_on is a pair of images and labels, or a split such as isthmus.data.loading.load('digits').train; "
            f"got {type(given).__name__}.{hint}"
        )
    if tuple(known.examples.shape) != shape:
        of = ["×".join(map(str, each)) for each in (known.examples.shape, shape)]
        raise DataError(f"trained_on has images of {of[0]}, and the audited ones are {of[1]} (C, H, W).")
    return known


def _labelled(images: object, labels: object, which: str) -> tuple[Tensor, Tensor]:
    pixels, numbers = images_and_labels(images, labels, which)
    check_images(pixels, f"{which}images")
    return pixels, inputs.integers(numbers, len(pixels), f"{which}labels")


def claimed_accuracy(claimed: float | str | None, checks: Sequence[Component]) -> float | None:
    """A claimed robust accuracy, in [0, 1], also from text: ``"53%"``, ``"0.53"``; None if nothing is claimed.

    Raises:
        ConfigError: anything else, or a claim that none of the checks tests.
    """
    if claimed is None:
        return None
    check_diagnosed(checks, "claimed", "is for the verdict of")
    value = parse_fraction(claimed)
    if not 0 <= value <= 1:
        hint = f" Did you mean {str(claimed).strip()}%?" if 1 < value <= 100 and "%" not in str(claimed) else ""
        raise ConfigError(
            f"A claimed robust accuracy is a fraction such as 0.53 or 53%, from 0 to 1; got {claimed!r}.{hint}"
        )
    return value
