"""ImageNet-C (Hendrycks & Dietterich 2019): ImageNet's validation images under a corruption at a severity, 3×224×224.

The files are those of the published archives, ``<corruption>/<severity>/<WordNet id>/*.JPEG``; each archive (noise,
blur, weather, digital, extra) may or may not have its own folder. The images are not resized.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from isthmus.core.errors import DataError
from isthmus.data.decode import pixels
from isthmus.data.on_demand import FileSplit
from isthmus.data.shift.files import hash_names, list_images, require_classes
from isthmus.data.shift.shifted import CorruptedTestSet, Published, Shifted
from isthmus.metrics.corruption import GROUPS

SIZE = 50_000


class ImageNetC(CorruptedTestSet):
    """One ``corruption`` at one ``severity``; ``size`` is the height and width of the images."""

    published: ClassVar[Published] = Published(
        title="ImageNet-C",
        place="hendrycks/ImageNet-C",
        get="Unpack noise.tar, blur.tar, weather.tar and digital.tar of https://zenodo.org/records/2235448 in "
        "MIRROR/hendrycks/ImageNet-C.",
    )
    name: Literal["imagenet_c"] = "imagenet_c"
    size: Annotated[int, Field(gt=0)] = 224

    def read(self, classes: tuple[str, ...] | None) -> Shifted:
        """List the files of one corruption at one severity.

        An incomplete copy is used as it is, with a warning that gives the number of images.
        """
        classes = require_classes(classes, self.published)
        split = list_images(self.folder(), classes, self.published, self.size, self.size, "bilinear")
        self._check_size(split)
        return Shifted(
            name=f"imagenet_c, {self.corruption}, severity {self.severity}",
            classes=classes,
            split=split,
            positions=torch.arange(len(split)),
            published=SIZE,
            examples=hash_names(split),
        )

    def folder(self) -> Path:
        """The folder with the images of this corruption at this severity.

        Raises:
            DataError: it does not exist; the message says how to get the files.
        """
        root, severity = super().folder(), str(self.severity)
        group = next(group for group, names in GROUPS.items() if self.corruption in names)  # the archive's name
        places = [root / self.corruption / severity, root / group / self.corruption / severity]
        for place in places:
            if place.is_dir():
                return place
        raise DataError(f"There is no folder {places[0]}, nor {places[1]}. {self.published.advice}")

    def _check_size(self, split: FileSplit) -> None:
        # the first image suffices, since one program wrote all of them
        file = split.root / split.names[0]
        height, width, _ = pixels(file, 3, str(file)).shape
        if (height, width) != (self.size, self.size):
            raise DataError(
                f"{file} is {height}×{width}; expected {self.size}×{self.size}, since images of {self.published.title} "
                "are not scaled. Set size to the size of the images, if the classifier accepts it."
            )
