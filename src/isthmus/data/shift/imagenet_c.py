"""ImageNet-C (Hendrycks & Dietterich 2019): ImageNet's validation images under a corruption at a severity, 3×224×224.

The files are those of the published archives, ``<corruption>/<severity>/<WordNet id>/*.JPEG``, whether or not each
archive (noise, blur, weather, digital, extra) was unpacked in a folder of its own. The images are tested on as they
are, without resizing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field

from isthmus.core.errors import DataError
from isthmus.data.decode import pixels
from isthmus.data.on_demand import FileSplit
from isthmus.data.shift import folders
from isthmus.data.shift.corruptions import CorruptionConfig, group_of
from isthmus.data.shift.loading import Published, limited, located
from isthmus.data.shift.testset import Shifted

PUBLISHED = Published(
    title="ImageNet-C",
    place="hendrycks/ImageNet-C",
    get="Unpack noise.tar, blur.tar, weather.tar and digital.tar of https://zenodo.org/records/2235448 in "
    "MIRROR/hendrycks/ImageNet-C.",
)
SIZE = 50_000


class Config(CorruptionConfig):
    """One ``corruption`` at one ``severity``; ``size`` is the height and width that its images have."""

    name: Literal["imagenet_c"] = "imagenet_c"
    size: Annotated[int, Field(gt=0)] = 224


def load(config: Config, classes: tuple[str, ...] | None) -> Shifted:
    """List one corruption at one severity (see :func:`isthmus.data.shift.loading.load`).

    A copy that is not complete is tested on as it is, with a warning that gives the number of images.
    """
    classes = folders.given(classes, PUBLISHED)
    place = folder(located(config, PUBLISHED), config)
    split = folders.listing(place, classes, PUBLISHED, config.size, config.size, "bilinear")
    _check_size(split, config.size)
    shifted = Shifted(
        name=f"imagenet_c, {config.corruption}, severity {config.severity}",
        classes=classes,
        split=split,
        positions=torch.arange(len(split)),
        published=SIZE,
        examples=folders.examples(split),
    )
    return limited(shifted, config)


def _check_size(split: FileSplit, size: int) -> None:
    """The first image tells: all come from one run of one program."""
    file = split.root / split.names[0]
    height, width, _ = pixels(file, 3, str(file)).shape
    if (height, width) != (size, size):
        raise DataError(
            f"{file} is {height}×{width}; expected {size}×{size}, since images of {PUBLISHED.title} are not scaled. "
            "Set size to what they are, if the classifier takes that."
        )


def folder(root: Path, config: Config) -> Path:
    """Where the images of one corruption at one severity lie below ``root``.

    Raises:
        DataError: there are none; says how to get them.
    """
    places = [root / config.corruption, root / group_of(config.corruption) / config.corruption]
    for place in places:
        if (place / str(config.severity)).is_dir():
            return place / str(config.severity)
    raise DataError(
        f"There is no folder {places[0] / str(config.severity)}, nor {places[1] / str(config.severity)}. "
        f"{PUBLISHED.advice}"
    )
