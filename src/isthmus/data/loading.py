"""From a config to images: what all data sets have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Int64
from pydantic import Field
from torch import Tensor

from isthmus.core import provenance, registry
from isthmus.core.config import Component, component
from isthmus.core.errors import ConfigError, DataError, shown, unknown
from isthmus.core.randomness import fold, uniform
from isthmus.data.images import Examples, ImageData, fingerprint
from isthmus.data.order import balanced

Limit = Annotated[int, Field(gt=0)] | None
FolderPath = Annotated[str, Field(min_length=1, max_length=4096)]
"""No system takes a longer one."""


class DataConfig(Component):
    """Options of every data set.

    ``classes`` keeps the examples of these classes alone, by name; labels are positions in this list ("3 versus 7").

    ``train_limit`` and ``test_limit`` keep at most that many examples of a split, for small experiments: the
    first ones of a fixed shuffle in which classes take turns. Classes are then equally frequent even where
    they were not before.

    ``random_labels`` is a seed, from which every training example draws a label that it keeps: all classes are equally
    likely, whatever the image shows. They can only be memorised (Zhang et al. 2017). The test split keeps its own.
    """

    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    train_limit: Limit = None
    test_limit: Limit = None
    random_labels: Annotated[int, Field(ge=0, lt=2**31)] | None = None


def load(given: Component | str | Mapping[str, Any]) -> ImageData:
    """Load a data set by name (``"digits"``, ``"folder:PATH"``), by a mapping with options, or by config.

    Raises:
        ConfigError: an unknown name or option.
        DataError: the data are missing, unreadable or not what they should be; says what to do.
    """
    config = component("data", given)
    data = registry.find("data", config.name).load(config)
    if not isinstance(data, ImageData):
        raise DataError(f"load() of the dataset {config.name!r} must return ImageData; got {type(data).__name__}.")
    provenance.use(data.name, data.fingerprint, data.note)
    return data


def folder_at(path: str) -> Path:
    """Where a folder is, from the root on.

    Raises:
        DataError: the path runs in a circle, or is none.
    """
    try:
        return Path(path).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{shown(path)} leads to no folder: {error}.") from None


def limited(data: ImageData, config: DataConfig) -> ImageData:
    """Apply the options that all data sets have. Where they do not bite, the data come back as they are.

    Raises:
        ConfigError: a class that there is not, or one that is named twice.
        DataError: ``train_limit`` is smaller than the number of classes, or leaves a class without a random label.
    """
    if config.classes is not None:
        data = _of_classes(data, config.classes)
    if config.train_limit is not None and config.train_limit < data.num_classes:
        raise DataError(
            f"train_limit={config.train_limit} leaves classes of {data.name} without a training example; "
            f"give at least {data.num_classes}."
        )
    train, test = _first(data.train, config.train_limit), _first(data.test, config.test_limit)
    if config.random_labels is not None:
        train = train.labelled(_random_labels(len(train), data.num_classes, config.random_labels))
    if train is data.train and test is data.test:
        return data
    return replace(data, train=train, test=test, fingerprint=fingerprint(train, test))


def _of_classes(data: ImageData, classes: tuple[str, ...]) -> ImageData:
    for name in classes:
        if name not in data.classes:
            raise ConfigError(unknown("class", name, data.classes))
        if classes.count(name) > 1:
            raise ConfigError(f"The class {name!r} is named {classes.count(name)} times; name each class once.")
    places = torch.full((data.num_classes,), -1)
    for label, name in enumerate(classes):
        places[data.classes.index(name)] = label

    def of(split: Examples) -> Examples:
        labels = places[split.labels]
        kept = (labels >= 0).nonzero().squeeze(1)
        if len(kept) == 0:
            raise DataError(f"{data.name} has no test image of {', '.join(classes)}.")
        return split.select(kept).labelled(labels[kept])

    train, test = of(data.train), of(data.test)
    return replace(data, train=train, test=test, classes=classes, fingerprint=fingerprint(train, test))


def _random_labels(n: int, classes: int, seed: int) -> Int64[Tensor, " n"]:
    """Uniform, one number for each position: the first of many are those of few."""
    drawn = uniform(fold(torch.arange(n), "loading/random_label", seed), (1,)).squeeze(1)
    return (drawn * classes).long().clamp(max=classes - 1)


def _first(split: Examples, limit: int | None) -> Examples:
    if limit is None or limit >= len(split):
        return split
    return split.select(balanced(split.labels)[:limit])
