"""ImageNet-V2 (Recht et al. 2019): 10,000 new test images for ImageNet, collected as its validation images were.

The files are those of the published archives, in a folder for each class, 0 to 999: its place among ImageNet's 1,000
WordNet ids in order. Folders may also have these ids as names.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

import torch

from isthmus.core.errors import DataError
from isthmus.data.decode import class_folders
from isthmus.data.shift.files import hash_names, list_images, require_classes
from isthmus.data.shift.imagenet_a import ClassFolders
from isthmus.data.shift.shifted import Published, Shifted, listed

CLASSES = 1000
_WORDNET = re.compile(r"n\d{8}")
FOLDERS = {
    "matched-frequency": "imagenetv2-matched-frequency-format-val",
    "threshold-0.7": "imagenetv2-threshold0.7-format-val",
    "top-images": "imagenetv2-top-images-format-val",
}


class ImageNetV2(ClassFolders):
    """ImageNet-V2, resized as in :class:`isthmus.data.imagenet.ImageNet`.

    Attributes:
        version: "matched-frequency", the default of the authors; "threshold-0.7"; or "top-images", the easiest.
        path: the folder with the class folders.
    """

    complete: ClassVar[int] = 10_000
    published: ClassVar[Published] = Published(
        title="ImageNet-V2",
        place="modestyachts/ImageNetV2",
        get="Unpack imagenetv2-matched-frequency.tar.gz (or another version) of "
        "https://huggingface.co/datasets/vaishaal/ImageNetV2 in MIRROR/modestyachts/ImageNetV2.",
    )
    argument: ClassVar[str | None] = "version"
    name: Literal["imagenet_v2"] = "imagenet_v2"
    version: Literal["matched-frequency", "threshold-0.7", "top-images"] = "matched-frequency"

    def read(self, classes: tuple[str, ...] | None) -> Shifted:
        """List the files of one version.

        Raises:
            DataError: also if folders are numbered and the classifier does not have ImageNet's 1,000 classes.
        """
        classes = require_classes(classes, self.published)
        root = self.folder() if self.path else self.folder() / FOLDERS[self.version]
        if not root.is_dir():
            raise DataError(f"There is no folder {root}. {self.published.advice}")
        numbered = all(name.isdigit() for name in class_folders(root))
        if numbered and not (len(classes) == CLASSES and all(map(_WORDNET.fullmatch, classes))):
            raise DataError(
                f"The folders of {root} are numbered like ImageNet's {CLASSES:,} WordNet ids in order, and the "
                f"classifier has {len(classes)} classes, {listed(classes, 3)}. Give these ids as `classes`, or rename "
                "the folders."
            )
        # number k is the k-th WordNet id; the classifier may have these in another order
        ordered = sorted(range(len(classes)), key=lambda place: classes[place])
        names = tuple(str(number) for number in range(CLASSES)) if numbered else classes
        split = list_images(root, names, self.published, self.size, self.shorter, self.interpolation)
        if numbered:
            split = split.labelled(torch.tensor(ordered)[split.labels])
        return Shifted(
            name=f"imagenet_v2, {self.version}",
            classes=classes,
            split=split,
            positions=torch.arange(len(split)),
            published=self.complete,
            examples=hash_names(split),
        )
