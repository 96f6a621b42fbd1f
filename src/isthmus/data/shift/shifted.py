"""Test sets under distribution shift: the loaded images, the base class of all sets, and loading by name.

Labels are in the order of the classes of a classifier that was trained on something else.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field, field_validator
from torch import Tensor

from isthmus.core import provenance
from isthmus.core.config import Component, component, instance
from isthmus.core.errors import DataError, ModelError, unknown
from isthmus.data.batches import Batch, Batches
from isthmus.data.images import Examples, check_labels
from isthmus.data.loading import Limit
from isthmus.data.order import balanced
from isthmus.metrics.corruption import GROUPS

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Shifted:
    """Labelled images for testing a classifier, not for training.

    Attributes:
        name: the name in tables, such as "cifar10_c, fog, severity 3".
        classes: names of the classifier's classes, in the order of its logits; labels are positions in it.
        split: the images and labels, in memory or in files that are decoded batch by batch. ``split.images`` are all of
            them as bytes, ``split.labels`` the labels.
        positions: int64, N; the position of each image in the whole set, which keys randomness.
        published: number of images in the published set.
        examples: a hash of the identity of the images. Outcomes are paired over sets only if it is equal.
        choices: int64, ascending; the classes that may be predicted, as the authors of the set define. None means all.

    Raises:
        DataError: labels out of range, or not among the choices.
    """

    name: str
    classes: tuple[str, ...]
    split: Examples
    positions: Int64[Tensor, " n"]
    published: int
    examples: str
    choices: Int64[Tensor, " k"] | None = None

    def __post_init__(self) -> None:
        check_labels(self.split.labels, len(self.classes), what=f"{self.name}: labels")
        if self.choices is not None and not torch.isin(self.split.labels, self.choices).all():
            raise DataError(f"{self.name}: some labels are not among the classes that may be predicted.")

    def __len__(self) -> int:
        return len(self.split)

    def __repr__(self) -> str:
        return f"Shifted({self.name}: {len(self)} of {self.published} images, {int(self.occurring.sum())} classes)"

    @property
    def occurring(self) -> Bool[Tensor, " classes"]:
        """Which of the classifier's classes have an image here."""
        return self.split.labels.bincount(minlength=len(self.classes)) > 0

    def first(self, limit: int | None) -> Shifted:
        """At most ``limit`` images: the first of a fixed shuffle in which classes alternate.

        All corruptions and severities of one benchmark keep the same images.
        """
        if limit is None or limit >= len(self):
            return self
        kept = balanced(self.split.labels)[:limit].sort().values
        return replace(
            self,
            split=self.split.select(kept),
            positions=self.positions[kept],
            examples=f"{self.examples}, {limit} of them",
        )

    def batches(self, batch_size: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """The images in order, float32 in [0, 1], with labels and :attr:`positions`; files are read ahead by threads.

        Raises:
            ValueError: ``batch_size`` is below 1.
            DataError: a file is missing or no image; the message names it.
        """
        for batch in Batches(self.split, batch_size, shuffle=False, device=device).epoch():
            yield batch._replace(indices=self.positions.to(device)[batch.indices])

    def predictions(self, logits: Float[Tensor, "b classes"], restricted: bool = True) -> Int64[Tensor, " b"]:
        """The predicted class of each row of logits; −1 if the largest is not finite or any is NaN.

        Logits may be −∞, for classes that are never predicted.

        Args:
            restricted: choose among :attr:`choices`, as the authors of the set do, rather than among all classes.

        Raises:
            ModelError: not one logit for each class.
        """
        if logits.ndim != 2 or logits.shape[1] != len(self.classes):
            raise ModelError(
                f"The classifier gives logits of shape {tuple(logits.shape)}, but {self.name} was loaded for "
                f"{len(self.classes)} classes; load it with the classes that the classifier was trained on."
            )
        choices = self.choices.to(logits.device) if restricted and self.choices is not None else None
        considered = logits if choices is None else logits[:, choices]
        best = considered.argmax(1)
        chosen = best if choices is None else choices[best]
        return torch.where(considered.amax(1).isfinite(), chosen, -1)  # amax propagates NaN


@dataclass(frozen=True)
class Published:
    """Where a set is published.

    Attributes:
        title: the name of the set in the literature.
        place: its folder below ``ISTHMUS_DATA``.
        get: how to fill that folder, a sentence with MIRROR for the value of ``ISTHMUS_DATA``.
    """

    title: str
    place: str
    get: str

    @property
    def advice(self) -> str:
        """What to do if a file is missing."""
        return (
            f"{self.get} Then set ISTHMUS_DATA=MIRROR; or give the folder that holds the files as the option path "
            f"(default: ISTHMUS_DATA/{self.place})."
        )


class ShiftedTestSet(Component, ABC):
    """Base of every shifted test set.

    Attributes:
        published: where the set is published.
        path: the folder with the published files; None means the set's folder below ``ISTHMUS_DATA``.
        limit: test on at most this many images, the first of a fixed shuffle in which classes alternate
            (:meth:`Shifted.first`).
    """

    published: ClassVar[Published]
    path: Annotated[str, Field(min_length=1)] | None = None
    limit: Limit = None

    @abstractmethod
    def read(self, classes: tuple[str, ...] | None) -> Shifted:
        """The whole set, with labels that are positions in the classifier's ``classes``.

        Raises:
            DataError: files are missing, damaged or invalid, or the classes do not fit.
        """

    def load(self, classes: Sequence[str] | None = None) -> Shifted:
        """The set with its options; see :func:`load`."""
        names = None if classes is None else tuple(classes)
        if names is not None and (len(set(names)) != len(names) or len(names) < 2):
            raise DataError(
                f"classes must be at least two different names, one for each logit; got {len(names)} names."
            )
        shifted = self.read(names)
        if not isinstance(shifted, Shifted):
            raise DataError(f"read() of the shifted test set {self.name!r} must return Shifted; got {type(shifted)}.")
        if len(shifted) != shifted.published:
            logger.warning("%s has %d of %d published images.", shifted.name, len(shifted), shifted.published)
        shifted = shifted.first(self.limit)
        provenance.use(shifted.name, shifted.examples)
        return shifted

    def folder(self) -> Path:
        """The folder with the published files.

        Raises:
            DataError: no folder is given, or it does not exist; the message says how to get the files.
        """
        published, mirror = self.published, os.environ.get("ISTHMUS_DATA")
        if self.path is None and not mirror:
            raise DataError(f"The folder of {published.title} is unknown. {published.advice}")
        folder = Path(self.path).expanduser() if self.path else Path(mirror or "").expanduser() / published.place
        if not folder.is_dir():
            raise DataError(f"There is no folder {folder} with {published.title}. {published.advice}")
        return folder


class CorruptedTestSet(ShiftedTestSet, ABC):
    """Base of benchmarks of common corruptions: one corruption at one severity.

    Attributes:
        corruption: as the published files are called: "gaussian_noise", …, "jpeg_compression", or one of the four
            that do not count in an mCE ("speckle_noise", "gaussian_blur", "spatter", "saturate").
        severity: 1 to 5.
        known: names of the corruptions of the set.
    """

    known: ClassVar[tuple[str, ...]] = tuple(name for names in GROUPS.values() for name in names)
    corruption: str
    severity: Annotated[int, Field(ge=1, le=5)]

    @field_validator("corruption")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in cls.known:
            raise ValueError(unknown("corruption", value, cls.known))
        return value


def load(given: Component | str | Mapping[str, Any], classes: Sequence[str] | None = None) -> Shifted:
    """Load a shifted test set by name (``"cifar10_1:v4"``), by a mapping with options, or as an object.

    Args:
        given: such as ``{"name": "cifar10_c", "corruption": "fog", "severity": 3}``.
        classes: names of the classifier's classes in the order of its logits: ``data.classes`` of its training data.
            None means the order of CIFAR-10; the ImageNet sets require them.

    Raises:
        ConfigError: an unknown name or option.
        DataError: files are missing (the message says how to get them), damaged or invalid, or the classes do not fit.
    """
    return instance("shifts", component("shifts", given), ShiftedTestSet).load(classes)


def relabelled(
    labels: Int64[Tensor, " n"], own: Sequence[str], classes: Sequence[str] | None, title: str
) -> tuple[Int64[Tensor, " n"], tuple[str, ...]]:
    """Convert labels of a set with classes ``own`` to positions in the classifier's ``classes``; return both.

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
    """The first ``most`` names, and the total if there are more."""
    more = f", … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more
