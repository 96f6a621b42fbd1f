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


class CorruptedFolders(CorruptedTestSet):
    """Base of sets with the files ``<corruption>/<severity>/<WordNet id>/*``; ``size`` is their height and width."""

    size: Annotated[int, Field(gt=0)] = 224

    def places(self) -> list[Path]:
        """Folders that may hold the images of this corruption at this severity."""
        return [self.root() / self.corruption / str(self.severity)]

    def root(self) -> Path:
        """The folder of the set."""
        return super().folder()

    def read(self, classes: tuple[str, ...] | None) -> Shifted:
        """List the files of one corruption at one severity.

        An incomplete copy is used as it is, with a warning that gives the number of images.
        """
        classes = require_classes(classes, self.published)
        split = list_images(self.folder(), classes, self.published, self.size, self.size, "bilinear")
        self._check_size(split)
        return Shifted(
            name=f"{self.name}, {self.corruption}, severity {self.severity}",
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
        places = self.places()
        for place in places:
            if place.is_dir():
                return place
        raise DataError(f"There is no folder {', nor '.join(map(str, places))}. {self.published.advice}")

    def _check_size(self, split: FileSplit) -> None:
        # the first image suffices, since one program wrote all of them
        file = split.root / split.names[0]
        height, width, _ = pixels(file, 3, str(file)).shape
        if (height, width) != (self.size, self.size):
            raise DataError(
                f"{file} is {height}×{width}; expected {self.size}×{self.size}, since images of {self.published.title} "
                "are not scaled. Set size to the size of the images, if the classifier accepts it."
            )


class ImageNetC(CorruptedFolders):
    """One ``corruption`` at one ``severity``; ``size`` is the height and width of the images."""

    published: ClassVar[Published] = Published(
        title="ImageNet-C",
        place="hendrycks/ImageNet-C",
        get="Unpack noise.tar, blur.tar, weather.tar and digital.tar of https://zenodo.org/records/2235448 in "
        "MIRROR/hendrycks/ImageNet-C.",
    )
    name: Literal["imagenet_c"] = "imagenet_c"

    def places(self) -> list[Path]:
        """The folder itself, or the one of its archive."""
        root, below = self.root(), f"{self.corruption}/{self.severity}"
        group = next(group for group, names in GROUPS.items() if self.corruption in names)
        return [root / below, root / group / below]
