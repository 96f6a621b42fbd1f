"""SVHN (Netzer et al. 2011), cropped house numbers: 73,257 + 26,032 digits, 3×32×32.

Hub id ``ufldl-stanford/svhn``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from isthmus.data.hub import HubDataset, Source


class SVHN(HubDataset):
    """SVHN: 3×32×32, 10 classes.

    Attributes:
        extra: add the 531,131 somewhat easier digits of the hub's split "extra" to the training split. The images then
            take 1.9 GB, and about three times as much while they are decoded and cached.
    """

    source: ClassVar[Source] = Source(
        name="svhn",
        hub_id="ufldl-stanford/svhn",
        config="cropped_digits",
        image="image",
        label="label",
        channels=3,
        classes=tuple(str(digit) for digit in range(10)),
    )
    name: Literal["svhn"] = "svhn"
    extra: bool = False

    @property
    def splits(self) -> Source:
        """With ``extra``, the larger training split."""
        return replace(self.source, train=("train", "extra")) if self.extra else self.source
