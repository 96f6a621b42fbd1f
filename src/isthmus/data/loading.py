"""Base class of datasets, and loading one from a name, a mapping or an object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Int64
from pydantic import Field
from torch import Tensor

from isthmus.core import provenance
from isthmus.core.config import Component, component, instance
from isthmus.core.errors import ConfigError, DataError, shown, unknown
from isthmus.core.randomness import fold, uniform
from isthmus.data.images import Examples, ImageData, fingerprint
from isthmus.data.order import balanced, stratified

Limit = Annotated[int, Field(gt=0)] | None
FolderPath = Annotated[str, Field(min_length=1, max_length=4096)]  # no system allows a longer path


class ImageDataset(Component, ABC):
    """Base of every dataset.

    Attributes:
        classes: keep only the examples of these classes, by name; labels are positions in this list ("3 versus 7").
        train_limit, test_limit: keep at most this many examples of a split, for small experiments: the first of a fixed
            shuffle in which classes alternate, so that all classes are equally frequent.
        random_labels: a seed from which every training example draws a fixed label, uniformly over classes and
            independently of the image. Such labels can only be memorised (Zhang et al. 2017). Other labels are
            unchanged.
    """

    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    train_limit: Limit = None
    test_limit: Limit = None
    random_labels: Annotated[int, Field(ge=0, lt=2**31)] | None = None

    @abstractmethod
    def read(self) -> ImageData:
        """The whole dataset, before the options of this class.

        Raises:
            DataError: the data are missing, unreadable or invalid; the message says what to do.
        """

    def load(self) -> ImageData:
        """The dataset with its options.

        Raises:
            ConfigError: an unknown class, or one given twice.
            DataError: as :meth:`read`; or ``train_limit`` is smaller than the number of classes, or leaves a class
                without a random label.
        """
        data = self.read()
        if not isinstance(data, ImageData):
            raise DataError(f"read() of the dataset {self.name!r} must return ImageData; got {type(data).__name__}.")
        data = self.limited(data)
        provenance.use(data.name, data.fingerprint, data.note)
        return data

    def limited(self, data: ImageData) -> ImageData:
        """``data`` with the options of this class; unchanged if they have no effect."""
        if self.classes is not None:
            data = _of_classes(data, self.classes)
        if self.train_limit is not None and self.train_limit < data.num_classes:
            raise DataError(
                f"train_limit={self.train_limit} leaves classes of {data.name} without a training example; "
                f"give at least {data.num_classes}."
            )
        train, test = _first(data.train, self.train_limit), _first(data.test, self.test_limit)
        if self.random_labels is not None:
            train = train.labelled(_random_labels(len(train), data.num_classes, self.random_labels))
        if train is data.train and test is data.test:
            return data
        return _with(data, train, test, data.validation, data.classes)


def load(given: Component | str | Mapping[str, Any]) -> ImageData:
    """Load a dataset by name (``"digits"``, ``"folder:PATH"``), by a mapping with options, or as an object.

    Raises:
        ConfigError: an unknown name or option.
        DataError: the data are missing, unreadable or invalid; the message says what to do.
    """
    return instance("data", component("data", given), ImageDataset).load()


def _with(
    data: ImageData, train: Examples, test: Examples, validation: Examples | None, classes: tuple[str, ...]
) -> ImageData:
    digest = fingerprint(*(split for split in (train, test, validation) if split is not None))
    return replace(data, train=train, test=test, validation=validation, classes=classes, fingerprint=digest)


def held_out(data: ImageData, share: float | None) -> tuple[ImageData, Examples | None]:
    """The data to train on, and the validation split: the data's own, or a fixed ``share`` of each class of ``train``.

    Raises:
        ConfigError: a share of data that have a validation split.
        DataError: there are too few training images.
    """
    if share is None:
        return data, data.validation
    if data.validation is not None:
        raise ConfigError(
            f"training.validation={share:g} would hold out training images, but {data.name} has "
            f"{len(data.validation)} validation images of its own; leave one of the two out."
        )
    kept, held = stratified(data.train.labels, share)
    if not len(held):
        raise DataError(f"{share:.0%} of each class of {len(data.train)} training images is none; validate on more.")
    return replace(data, train=data.train.select(kept)), data.train.select(held)


def folder_at(path: str) -> Path:
    """The absolute path of a folder.

    Raises:
        DataError: the path is invalid, or its links form a circle.
    """
    try:
        return Path(path).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{shown(path)} is not a path of a folder: {error}.") from None


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

    validation = None if data.validation is None else of(data.validation)
    return _with(data, of(data.train), of(data.test), validation, classes)


def _random_labels(n: int, classes: int, seed: int) -> Int64[Tensor, " n"]:
    """Uniform labels by position; a longer list begins with the shorter one."""
    drawn = uniform(fold(torch.arange(n), "loading/random_label", seed), (1,)).squeeze(1)
    return (drawn * classes).long().clamp(max=classes - 1)


def _first(split: Examples, limit: int | None) -> Examples:
    if limit is None or limit >= len(split):
        return split
    return split.select(balanced(split.labels)[:limit])
