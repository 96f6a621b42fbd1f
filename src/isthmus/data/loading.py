"""From a config to images: what all data sets have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from isthmus import registry
from isthmus.config import Component, component
from isthmus.data.images import Examples, ImageData, fingerprint
from isthmus.data.order import balanced
from isthmus.errors import DataError

Limit = Annotated[int, Field(gt=0)] | None


class DataConfig(Component):
    """Options of every data set.

    ``train_limit`` and ``test_limit`` keep at most that many examples of a split, for small experiments: the
    first ones of a fixed shuffle in which classes take turns. Classes are then equally frequent even where
    they were not before.
    """

    train_limit: Limit = None
    test_limit: Limit = None


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
    return data


def limited(data: ImageData, config: DataConfig) -> ImageData:
    """Apply ``train_limit`` and ``test_limit``. Where they do not bite, the data come back as they are.

    Raises:
        DataError: ``train_limit`` is smaller than the number of classes.
    """
    if config.train_limit is not None and config.train_limit < data.num_classes:
        raise DataError(
            f"train_limit={config.train_limit} leaves classes of {data.name} without a training example; "
            f"give at least {data.num_classes}."
        )
    train, test = _first(data.train, config.train_limit), _first(data.test, config.test_limit)
    if train is data.train and test is data.test:
        return data
    return replace(data, train=train, test=test, fingerprint=fingerprint(train, test))


def _first(split: Examples, limit: int | None) -> Examples:
    if limit is None or limit >= len(split):
        return split
    return split.select(balanced(split.labels)[:limit])
