"""Where the images of the ImageNet studies are, what of them is missing, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from isthmus.core.errors import ConfigError, DataError
from isthmus.data.shift.imagenet_a import ImageNetA
from isthmus.data.shift.imagenet_c import ImageNetC
from isthmus.metrics.corruption import CORRUPTIONS, SEVERITIES
from isthmus.studies.ceb import textures
from isthmus.studies.ceb.imagenet import ImageNetConfig
from isthmus.studies.store import ResultStore

CORRUPTED, ADVERSARIAL = "imagenet_c", "imagenet_a"


@dataclass(frozen=True)
class Places:
    """Folders and options of the three sets.

    Attributes:
        path: the folder with train and val.
        corrupted, adversarial: options of the test sets ``imagenet_c`` (without corruption and severity) and
            ``imagenet_a``.
        missing: of "imagenet_a", and of each corruption that is not there at all severities, one sentence.
    """

    path: str
    corrupted: Mapping[str, Any]
    adversarial: Mapping[str, Any]
    missing: Mapping[str, str] = field(default_factory=dict)


def find(config: ImageNetConfig, bench: ResultStore) -> Places:
    """Look for the images, and make them where they are to be textures.

    Raises:
        ConfigError: no folder is named.
    """
    folders = {"path": config.path, CORRUPTED: config.imagenet_c, ADVERSARIAL: config.imagenet_a}
    if config.data == "textures":
        made = textures.make(bench.root / "data", config.size)
        folders = {"path": str(made), CORRUPTED: str(made / "imagenet-c"), ADVERSARIAL: str(made / "imagenet-a")}
    if folders["path"] is None:
        raise ConfigError(
            "Where is ImageNet? Set path=FOLDER, the folder with train/<class>/ and val/<class>/; --scale tiny makes a "
            "few images of its own."
        )
    corrupted = {"name": CORRUPTED, "path": folders[CORRUPTED], "size": config.corrupted_size}
    shorter = round(config.size * 256 / 224)
    adversarial = {"name": ADVERSARIAL, "path": folders[ADVERSARIAL], "size": config.size, "shorter": shorter}
    limit = {"limit": config.corrupted}
    return Places(
        folders["path"], {**corrupted, **limit}, {**adversarial, **limit}, _missing({**corrupted}, {**adversarial})
    )


def _missing(corrupted: dict[str, Any], adversarial: dict[str, Any]) -> dict[str, str]:
    found = {}
    for corruption in CORRUPTIONS:
        try:
            for severity in SEVERITIES:
                ImageNetC(**corrupted, corruption=corruption, severity=severity).folder()
        except DataError as error:
            found[corruption] = str(error)
    try:
        ImageNetA(**adversarial).folder()
    except DataError as error:
        found[ADVERSARIAL] = str(error)
    return found
