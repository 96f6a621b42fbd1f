"""The photographs that frost is made of: published image files, which are not ours to ship."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from isthmus.core.errors import DataError
from isthmus.data.decode import Channels, need_pillow, pixels

FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
"""Those that the published scripts draw from; a sixth lies beside them."""
PACKAGE = "imagecorruptions"
GET = (
    f"They are the files {FILES[0]} to {FILES[-1]} of ImageNet-C/create_c in github.com/hendrycks/robustness; the "
    f"package {PACKAGE} carries them, too (pip install --no-deps {PACKAGE})."
)
_FIFTH = slice(2, None, 5)  # what OpenCV's linear interpolation takes when it scales by 0.2


def installed() -> Path | None:
    """The photographs' folder in the package that carries them, which is not imported; None where there is none."""
    spec = find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec is not None else None
    folders = [Path(place) / "frost" for place in places or ()]
    return next((folder for folder in folders if folder.is_dir()), None)


def load(folder: str | Path, channels: int, shrunk: bool) -> tuple[UInt8[Tensor, "c height width"], ...]:
    """Read the five photographs.

    Args:
        channels: 3, or 1 for grey.
        shrunk: to a fifth, as for CIFAR-10-C.

    Raises:
        DataError: one of them is missing or no image, or Pillow is.
    """
    root = Path(folder).expanduser()
    missing = [name for name in FILES if not (root / name).is_file()]
    if missing:
        raise DataError(f"{root} lacks {', '.join(missing)}, the photographs for frost. {GET}")
    need_pillow()
    return _read(root, 1 if channels == 1 else 3, shrunk)


@lru_cache(maxsize=2)
def _read(root: Path, channels: Channels, shrunk: bool) -> tuple[Tensor, ...]:
    images = [torch.from_numpy(pixels(root / name, channels, str(root / name)).copy()) for name in FILES]
    part = _FIFTH if shrunk else slice(None)
    return tuple(image[part, part].permute(2, 0, 1).contiguous() for image in images)
