"""CIFAR-100-C (Hendrycks & Dietterich 2019): CIFAR-100's test images under a corruption at a severity, 3×32×32.

The files have the form of CIFAR-10-C's.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from isthmus.data.cifar100 import CIFAR100
from isthmus.data.shift.cifar10_c import NumpyCorruptions
from isthmus.data.shift.shifted import Published


class CIFAR100C(NumpyCorruptions):
    """One ``corruption`` at one ``severity``; the classes are the 100 fine ones."""

    own_classes: ClassVar[tuple[str, ...]] = CIFAR100.source.classes
    published: ClassVar[Published] = Published(
        title="CIFAR-100-C",
        place="hendrycks/CIFAR-100-C",
        get="Unpack CIFAR-100-C.tar of https://zenodo.org/records/3555552 in MIRROR/hendrycks.",
    )
    name: Literal["cifar100_c"] = "cifar100_c"
