"""What an audit is asked: threat, checks, images and labels, each fault one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus import config
from isthmus.attacks import inputs
from isthmus.attacks.threats import Threat, parse
from isthmus.config import Component
from isthmus.data.images import check_images
from isthmus.errors import ConfigError, DataError

DEFAULT_CHECKS = ("obfuscation", "accuracy", "robustness", "calibration", "information", "detection")


def threat_of(given: Threat | str) -> Threat:
    """A threat, also from text.

    Raises:
        ConfigError: it is neither.
    """
    threat = parse(given) if isinstance(given, str) else given
    if not isinstance(threat, Threat):
        raise ConfigError(f"A threat is an object such as isthmus.Linf(8 / 255), or 'linf:8/255'; got {given!r}.")
    return threat


def configs(checks: Sequence[str | Mapping[str, Any] | Component] | None) -> list[Component]:
    """The checks' options, with all defaults filled in; all of :data:`DEFAULT_CHECKS` for None.

    Raises:
        ConfigError: an unknown check or option, or a check that is given twice.
    """
    asked = DEFAULT_CHECKS if checks is None else [checks] if isinstance(checks, str) else checks
    configs = [config.component("checks", item) for item in asked]
    twice = [name for name, count in Counter(check.name for check in configs).items() if count > 1]
    if twice:
        raise ConfigError(
            f"The check {twice[0]!r} is given twice, and an audit keeps one result a check; leave one out, or audit "
            "again with the other options and another folder."
        )
    return configs


def examples(images: Tensor, labels: object, indices: object) -> tuple[Tensor, Tensor, Tensor]:
    """Images as float32, labels and positions in the data set as int64.

    Raises:
        DataError: a wrong shape, type or range.
    """
    images = images.detach() if isinstance(images, Tensor) else images
    check_images(images)
    n = len(images)
    numbers = _tensor(labels, "labels")
    if numbers.ndim and len(numbers) != n:
        raise DataError(f"An audit needs as many labels as images, and some; got {n} and {len(numbers)}.")
    if not (numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool):
        numbers = numbers.long()
    positions = torch.arange(n) if indices is None else inputs.integers(_tensor(indices, "indices"), n, "indices").cpu()
    return images.float(), numbers, positions


def _tensor(values: object, what: str) -> Tensor:
    try:
        return torch.as_tensor(values).detach()
    except (TypeError, ValueError, RuntimeError):
        raise DataError(
            f"The {what} must be a tensor, an array or a list of one integer an image; got {type(values).__name__}."
        ) from None


def share(claimed: float | str | None) -> float | None:
    """A claimed robust accuracy, in [0, 1], also from text: ``"53%"``, ``"0.53"``; None where nothing is claimed.

    Raises:
        ConfigError: anything else.
    """
    if claimed is None:
        return None
    number, percent, rest = claimed.strip().partition("%") if isinstance(claimed, str) else (claimed, "", "")
    try:
        value = float(number) / (100 if percent else 1)
    except (TypeError, ValueError):
        value = -1.0
    if rest or isinstance(claimed, bool) or not 0 <= value <= 1:
        raise ConfigError(f"A claimed robust accuracy is a share such as 0.53 or 53%, from 0 to 1; got {claimed!r}.")
    return value
