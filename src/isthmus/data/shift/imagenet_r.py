"""ImageNet-R (Hendrycks et al. 2021): 30,000 renditions (art, cartoons, toys, …) of 200 ImageNet classes.

The files are those of the published archive, ``<WordNet id>/*.jpg``, and are read and scored as ImageNet-A's: a
classifier chooses among the 200 classes.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from isthmus.data.shift.imagenet_a import ClassFolders
from isthmus.data.shift.shifted import Published


class ImageNetR(ClassFolders):
    """ImageNet-R, resized as in :class:`isthmus.data.imagenet.ImageNet`."""

    complete: ClassVar[int] = 30_000
    published: ClassVar[Published] = Published(
        title="ImageNet-R",
        place="hendrycks/imagenet-r",
        get="Unpack https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar in MIRROR/hendrycks.",
    )
    name: Literal["imagenet_r"] = "imagenet_r"
