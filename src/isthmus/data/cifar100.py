"""CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 small photographs of 100 classes, 3×32×32. Hub id ``uoft-cs/cifar100``.

Or the published archive, ``cifar-100-python.tar.gz`` of https://www.cs.toronto.edu/~kriz/cifar.html, unpacked: its
pickles are read without running code.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from isthmus.core.errors import DataError
from isthmus.data.cache import cached
from isthmus.data.hub import HubDataset, Source
from isthmus.data.images import ImageData, Split
from isthmus.data.loading import FolderPath
from isthmus.data.safe_pickle import read_pickle

ARCHIVE = "cifar-100-python"
GET = (
    "Unpack cifar-100-python.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html in MIRROR and set "
    "ISTHMUS_DATA=MIRROR, or give the folder cifar-100-python as the option path."
)
CLASSES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard "
    "lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear "
    "pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark "
    "shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone "
    "television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
"""Names of the fine classes in the order of their labels."""


class CIFAR100(HubDataset):
    """CIFAR-100: 3×32×32, the 100 fine classes.

    Attributes:
        path: the folder ``cifar-100-python`` of the published archive, with the files ``train`` and ``test``. If None
            and ``ISTHMUS_DATA`` has such a folder, that one.
    """

    source: ClassVar[Source] = Source(
        name="cifar100",
        hub_id="uoft-cs/cifar100",
        config="cifar100",
        image="img",
        label="fine_label",
        channels=3,
        classes=tuple(CLASSES.split()),
    )
    name: Literal["cifar100"] = "cifar100"
    path: FolderPath | None = None

    def read(self) -> ImageData:
        """The published archive if there is one, otherwise as for every data set of the hub.

        Raises:
            DataError: files are missing, damaged or invalid; the message says how to get them.
        """
        folder = self._archive()
        if folder is None:
            try:
                return super().read()
            except DataError as error:
                raise DataError(f"{error} {GET}") from None
        files = {name: folder / name for name in ("train", "test")}
        for file in files.values():
            if not file.is_file():
                raise DataError(f"There is no {file}. {GET}")
        facts = {"archive": [[name, file.stat().st_size, file.stat().st_mtime_ns] for name, file in files.items()]}
        return cached(
            self.source.name, self.source.classes, facts, lambda: (_split(files["train"]), _split(files["test"]))
        )

    def _archive(self) -> Path | None:
        """The folder of the archive, if it is named or below ``ISTHMUS_DATA``."""
        if self.path is not None:
            return Path(self.path).expanduser()
        mirror = os.environ.get("ISTHMUS_DATA")
        folder = Path(mirror or "").expanduser() / ARCHIVE
        return folder if mirror and folder.is_dir() else None


def _split(file: Path) -> Split:
    """One pickle: ``data``, bytes n×3072, red before green before blue, and ``fine_labels``."""
    found = read_pickle(file, GET)
    data: Any = found.get("data")
    labels = found.get("fine_labels")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3 * 32 * 32:
        shape = data.shape if isinstance(data, np.ndarray) else "no array"
        raise DataError(f"{file} holds {shape} as data; expected bytes of shape (images, 3072). {GET}")
    if not isinstance(labels, list) or len(labels) != len(data) or not all(isinstance(label, int) for label in labels):
        raise DataError(f"{file} must hold one whole number per image as fine_labels. {GET}")
    images = torch.from_numpy(data.reshape(-1, 3, 32, 32).copy())
    return Split(images, torch.tensor(labels, dtype=torch.int64))
