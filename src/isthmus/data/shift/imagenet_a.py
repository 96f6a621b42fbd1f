"""ImageNet-A (Hendrycks et al. 2019): 7,500 photographs of 200 ImageNet classes, chosen since a ResNet-50 errs on them.

The files are those of the published archive, ``<WordNet id>/*.jpg``. Its authors resize the shorter side to 256, cut
out the centre of 224×224, and let a classifier choose among the 200 classes alone; so does this, and
``restricted=False`` of :func:`isthmus.checks.shift_outcomes.right` chooses among all.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator

from isthmus.data.resized_crop import Interpolation
from isthmus.data.shift import folders
from isthmus.data.shift.loading import Published, ShiftConfig, limited, located
from isthmus.data.shift.testset import Shifted

PUBLISHED = Published(
    title="ImageNet-A",
    place="hendrycks/imagenet-a",
    get="Unpack https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar in MIRROR/hendrycks.",
)
SIZE = 7_500


class Config(ShiftConfig):
    """How images are brought to one size, as :class:`isthmus.data.imagenet.Config` says it.

    Attributes:
        shorter: the shorter side is scaled to so many pixels, and
        size: a square of size × size cut out of the centre.
        interpolation: "bilinear" as the set's authors have it, or "bicubic".
    """

    name: Literal["imagenet_a"] = "imagenet_a"
    size: Annotated[int, Field(gt=0)] = 224
    shorter: Annotated[int, Field(gt=0)] = 256
    interpolation: Interpolation = "bilinear"

    @model_validator(mode="after")
    def _shorter_side_holds_the_crop(self) -> Self:
        if self.shorter < self.size:
            raise ValueError(f"shorter={self.shorter} leaves no {self.size}×{self.size} pixels to cut out")
        return self


def load(config: Config, classes: tuple[str, ...] | None) -> Shifted:
    """List the set (see :func:`isthmus.data.shift.loading.load`).

    The classes that may be predicted are those that have a folder.
    """
    classes = folders.given(classes, PUBLISHED)
    root = located(config, PUBLISHED)
    split = folders.listing(root, classes, PUBLISHED, config.size, config.shorter, config.interpolation)
    shifted = Shifted(
        name="imagenet_a",
        classes=classes,
        split=split,
        positions=torch.arange(len(split)),
        published=SIZE,
        examples=folders.examples(split),
        choices=torch.tensor(sorted(set(split.labels.tolist()))),
    )
    return limited(shifted, config)
