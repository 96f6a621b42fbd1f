"""A test set under shift: labelled images in the label order of a classifier that was trained on something else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from isthmus.core.errors import DataError, ModelError
from isthmus.data.batches import Batch, Batches
from isthmus.data.images import Examples, check_labels
from isthmus.data.order import balanced


@dataclass(frozen=True, eq=False, repr=False)
class Shifted:
    """Labelled images that a classifier is tested on and nothing is trained on.

    Attributes:
        name: what a table calls it, such as "cifar10_c, fog, severity 3".
        classes: names of the classifier's classes, in the order of its logits; labels are positions in it.
        split: the images and labels, in memory or in files that are decoded batch by batch. ``split.images`` are all of
            them as bytes, ``split.labels`` the labels.
        positions: int64, N; where each image stands in the whole set. Randomness is keyed by it.
        published: how many images the published set has.
        examples: a hash of which images these are. Outcomes are paired over sets only where it is the same.
        choices: int64, ascending; the classes among which the set's authors let a classifier choose. None is all.

    Raises:
        DataError: labels out of range, or a label that is none of the choices.
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
        """At most ``limit`` images: the first of a fixed shuffle in which classes take turns.

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
            DataError: a file is missing or no image; names it.
        """
        for batch in Batches(self.split, batch_size, shuffle=False, device=device).epoch():
            yield batch._replace(indices=self.positions.to(device)[batch.indices])

    def predictions(self, logits: Float[Tensor, "b classes"], restricted: bool = True) -> Int64[Tensor, " b"]:
        """The predicted class of each row of logits; −1 where the greatest is not finite, or any of them NaN.

        Logits of −∞, of classes that are never given, are allowed.

        Args:
            restricted: choose among :attr:`choices` alone, as the authors of the set do, or among all classes.

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
        return torch.where(considered.amax(1).isfinite(), chosen, -1)  # amax passes NaN on
