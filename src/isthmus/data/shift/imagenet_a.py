"""ImageNet-A (Hendrycks et al. 2019): 7,500 photographs of 200 ImageNet classes that a ResNet-50 misclassifies.

The files are those of the published archive, ``<WordNet id>/*.jpg``. Its authors resize the shorter side to 256, crop
the centre of 224×224, and let a classifier choose among the 200 classes. This module does the same;
``restricted=False`` of :func:`isthmus.checks.shift.correct_predictions` chooses among all classes.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator

from isthmus.data.crops import Interpolation
from isthmus.data.shift.files import hash_names, list_images, require_classes
from isthmus.data.shift.shifted import Published, Shifted, ShiftedTestSet


class ClassFolders(ShiftedTestSet):
    """Base of photographs in folders of their classes, which are some of the classifier's.

    Attributes:
        shorter: the shorter side is scaled to this many pixels.
        size: a square of size × size is then cropped from the centre.
        interpolation: "bilinear" as used by the authors, or "bicubic".
        complete: number of published images.
    """

    complete: ClassVar[int]
    size: Annotated[int, Field(gt=0)] = 224
    shorter: Annotated[int, Field(gt=0)] = 256
    interpolation: Interpolation = "bilinear"

    @model_validator(mode="after")
    def _shorter_side_holds_the_crop(self) -> Self:
        if self.shorter < self.size:
            raise ValueError(f"shorter={self.shorter} leaves no {self.size}×{self.size} pixels to cut out")
        return self

    def read(self, classes: tuple[str, ...] | None) -> Shifted:
        """List the files of the set.

        The classes that may be predicted are those with a folder.
        """
        classes = require_classes(classes, self.published)
        root = self.folder()
        split = list_images(root, classes, self.published, self.size, self.shorter, self.interpolation)
        return Shifted(
            name=self.name,
            classes=classes,
            split=split,
            positions=torch.arange(len(split)),
            published=self.complete,
            examples=hash_names(split),
            choices=torch.tensor(sorted(set(split.labels.tolist()))),
        )


class ImageNetA(ClassFolders):
    """ImageNet-A, resized as in :class:`isthmus.data.imagenet.ImageNet`."""

    complete: ClassVar[int] = 7_500
    published: ClassVar[Published] = Published(
        title="ImageNet-A",
        place="hendrycks/imagenet-a",
        get="Unpack https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar in MIRROR/hendrycks.",
    )
    name: Literal["imagenet_a"] = "imagenet_a"
