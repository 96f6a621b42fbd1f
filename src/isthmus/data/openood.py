"""The out-of-distribution test sets of OpenOOD 1.5 (Zhang et al. 2023), as lists of image files.

The files are those of OpenOOD's download script, below one folder: ``benchmark_imglist/<benchmark>/test_<set>.txt``,
lines with a path and a label, and the images below ``images_classic`` or ``images_largescale``.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from isthmus.core.errors import ConfigError, DataError, shown, unknown

PLACE = "openood"
"""The folder below ``ISTHMUS_DATA``."""

GET = (
    "With a network, run scripts/download/download.py of github.com/Jingkang50/OpenOOD with MIRROR/openood as the "
    "folder for data, and set ISTHMUS_DATA=MIRROR."
)

_CLASSIC, _LARGE = "images_classic", "images_largescale"
_SMALL_FAR = {"mnist": _CLASSIC, "svhn": _CLASSIC, "texture": _CLASSIC, "places365": _CLASSIC}
_LARGE_SETS = {
    "near": {"ssb_hard": _LARGE, "ninco": _LARGE},
    "far": {"inaturalist": _LARGE, "textures": _CLASSIC, "openimage_o": _LARGE},
}
BENCHMARKS: dict[str, dict[str, dict[str, str]]] = {
    "cifar10": {"near": {"cifar100": _CLASSIC, "tin": _CLASSIC}, "far": _SMALL_FAR},
    "cifar100": {"near": {"cifar10": _CLASSIC, "tin": _CLASSIC}, "far": _SMALL_FAR},
    "imagenet200": _LARGE_SETS,
    "imagenet": _LARGE_SETS,
}
"""Benchmark, group, set, and the folder that the paths of the set's list start from."""


def sets_of(name: str) -> list[str]:
    """The sets that a name stands for: ``cifar10/tin`` for itself, ``cifar10/near``, ``cifar10/far``, or ``cifar10``.

    Raises:
        ConfigError: there is no such benchmark, group or set.
    """
    benchmark, _, which = name.partition("/")
    if benchmark not in BENCHMARKS:
        raise ConfigError(unknown("OpenOOD benchmark", benchmark, BENCHMARKS))
    groups = BENCHMARKS[benchmark]
    every = {each: folder for sets in groups.values() for each, folder in sets.items()}
    if not which:
        found = every
    elif which in groups:
        found = groups[which]
    elif which in every:
        found = {which: every[which]}
    else:
        raise ConfigError(unknown(f"set of OpenOOD's benchmark {benchmark}", which, [*groups, *every]))
    return [f"{benchmark}/{each}" for each in found]


def files_of(name: str, path: str | None) -> list[Path]:
    """The image files of one set, in the order of its list.

    Args:
        name: ``benchmark/set``.
        path: the folder with lists and images; ``ISTHMUS_DATA/openood`` if None.

    Raises:
        DataError: list or images are missing (the message says how to get them), or a line is no path below the folder.
    """
    benchmark, _, which = name.partition("/")
    mirror = os.environ.get("ISTHMUS_DATA")
    if path is None and not mirror:
        raise DataError(f"The folder of OpenOOD's sets is unknown. {GET} Or give it as the option path.")
    root = Path(path).expanduser() if path else Path(mirror or "").expanduser() / PLACE
    listing = root / "benchmark_imglist" / benchmark / f"test_{which}.txt"
    folder = root / next(sets[which] for sets in BENCHMARKS[benchmark].values() if which in sets)
    if not listing.is_file():
        raise DataError(f"There is no {listing}. {GET}")
    try:
        lines = [line for line in listing.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read {listing}: {error}.") from None
    if not lines:
        raise DataError(f"{listing} lists no image. {GET}")
    files = []
    for number, line in enumerate(lines, 1):
        place = PurePosixPath(line.rsplit(maxsplit=1)[0])  # the path may hold spaces
        if place.is_absolute() or ".." in place.parts:
            raise DataError(f"Line {number} of {listing} is {shown(line)}; expected a path below {folder} and a label.")
        files.append(folder / place)
    missing = next((file for file in (files[0], files[-1]) if not file.is_file()), None)
    if missing is not None:
        raise DataError(f"There is no {missing}, which {listing} names. {GET}")
    return files
