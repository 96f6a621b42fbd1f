"""Weather: snow, frost and fog, which are layers added to an image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from isthmus.core.errors import DataError
from isthmus.core.randomness import fold, normal, uniform
from isthmus.data.corruptions import blurs, filters
from isthmus.data.corruptions.parameters import Images, Keys, Severity
from isthmus.data.decode import Channels, need_pillow, pixels

FROST_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
"""The photographs that the published scripts draw from; the repository has a sixth. They are not ours to ship."""
PACKAGE = "imagecorruptions"
GET = (
    f"They are the files {FROST_FILES[0]} to {FROST_FILES[-1]} of ImageNet-C/create_c in "
    f"github.com/hendrycks/robustness, also in the package {PACKAGE} (pip install --no-deps {PACKAGE})."
)
_FIFTH = slice(2, None, 5)  # the pixels that OpenCV's linear interpolation selects at scale 0.2


def frost_folder() -> Path | None:
    """The folder of the photographs in the package that ships them, which is not imported; None if not installed."""
    spec = find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec is not None else None
    folders = [Path(place) / "frost" for place in places or ()]
    return next((folder for folder in folders if folder.is_dir()), None)


def load_frost(folder: str | Path, channels: int, shrunk: bool) -> tuple[UInt8[Tensor, "c height width"], ...]:
    """Read the five photographs of frost.

    Args:
        channels: 3, or 1 for grey.
        shrunk: scale to a fifth, as for CIFAR-10-C.

    Raises:
        DataError: one of them is missing or no image, or Pillow is not installed.
    """
    root = Path(folder).expanduser()
    missing = [name for name in FROST_FILES if not (root / name).is_file()]
    if missing:
        raise DataError(f"{root} lacks {', '.join(missing)}, the photographs for frost. {GET}")
    need_pillow()
    return _read(root, 1 if channels == 1 else 3, shrunk)


@lru_cache(maxsize=2)
def _read(root: Path, channels: Channels, shrunk: bool) -> tuple[Tensor, ...]:
    images = [torch.from_numpy(pixels(root / name, channels, str(root / name)).copy()) for name in FROST_FILES]
    part = _FIFTH if shrunk else slice(None)
    return tuple(image[part, part].permute(2, 0, 1).contiguous() for image in images)


_ROUGHNESS = 100.0


def plasma(keys: Int64[Tensor, " n"], size: int, decay: float) -> Float[Tensor, "n size size"]:
    """A periodic height map in [0, 1] for each key.

    The diamond-square algorithm (Fournier, Fussell & Carpenter 1982). Each level halves the distance between known
    points: the centres of squares, and then of their sides, become the mean of their four neighbours plus uniform
    noise. The roughness falls by ``decay`` per level, and the noise reaches to its square, as in the published script.

    Args:
        size: a power of two.
    """
    grid = torch.zeros(len(keys), size, size, device=keys.device)
    roughness = _ROUGHNESS
    step, level = size, 0
    while step >= 2:
        half = step // 2
        corners = grid[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 2)
        middles = _between(pairs + pairs.roll(-1, 1), fold(keys, "plasma/middles", level), roughness)
        grid[:, half::step, half::step] = middles
        above = middles + middles.roll(1, 1) + pairs
        grid[:, ::step, half::step] = _between(above, fold(keys, "plasma/above", level), roughness)
        beside = middles + middles.roll(1, 2) + corners + corners.roll(-1, 1)
        grid[:, half::step, ::step] = _between(beside, fold(keys, "plasma/beside", level), roughness)
        step, level, roughness = half, level + 1, roughness / decay
    grid -= grid.amin((1, 2), keepdim=True)
    return grid / grid.amax((1, 2), keepdim=True)


def _between(sums: Float[Tensor, "n k k"], keys: Int64[Tensor, " n"], roughness: float) -> Float[Tensor, "n k k"]:
    noise = uniform(keys, tuple(sums.shape[1:])) * (2 * roughness) - roughness
    return sums / 4 + roughness * noise


_LUMA = (0.299, 0.587, 0.114)


def snow(images: Images, severity: Severity, keys: Keys) -> Images:
    """Whiten the image and add flakes twice, the second time upside down.

    ``severity`` is (mean and deviation of the flakes' normal noise, its enlargement, the threshold below which
    flakes are 0, radius and σ of their motion blur, the weight of the original colours).
    """
    mean, deviation, zoom, threshold, radius, sigma, kept = severity
    flakes = mean + deviation * normal(keys, (1, *images.shape[2:]))
    flakes = filters.clipped_zoom(flakes, zoom)
    flakes = filters.quantised(torch.where(flakes < threshold, 0.0, flakes))
    flakes = blurs.blur_along(flakes, radius, sigma, uniform(fold(keys, "snow/angle"), ()) * 90.0 - 135.0)
    whitened = torch.maximum(images, _grey(images) * 1.5 + 0.5)
    return torch.lerp(whitened, images, kept) + flakes + flakes.rot90(2, (2, 3))


def _grey(images: Images) -> Float[Tensor, "n 1 h w"]:
    if images.shape[1] == 1:
        return images
    return (images * torch.tensor(_LUMA, device=images.device).view(-1, 1, 1)).sum(1, keepdim=True)


def fog(images: Images, severity: Severity, keys: Keys, size: int) -> Images:
    """Add a cloudy height map, and darken so that the brightest value is unchanged.

    ``severity`` is (thickness, decay of the map's roughness); see :func:`isthmus.data.corruptions.weather.plasma`.

    Args:
        size: side of the map, whose upper left part is used.
    """
    thickness, decay = severity
    height, width = images.shape[2:]
    clouds = plasma(keys, size, decay)[:, None, :height, :width]
    brightest = images.amax((1, 2, 3), keepdim=True)
    return (images + thickness * clouds) * (brightest / (brightest + thickness))


def frost(
    images: Images, severity: Severity, keys: Keys, photographs: Sequence[UInt8[Tensor, "c height width"]]
) -> Images:
    """Add a random part of a random photograph of frost; ``severity`` are the weights of image and photograph.

    Args:
        photographs: with as many channels as the images, and larger.
    """
    own, added = severity
    height, width = images.shape[2:]
    drawn = uniform(keys, (3,)).double().cpu()
    parts = []
    for choice, down, across in drawn.tolist():
        photograph = photographs[int(choice * len(photographs))]
        top, left = int(down * (photograph.shape[1] - height)), int(across * (photograph.shape[2] - width))
        parts.append(photograph[:, top : top + height, left : left + width])
    return own * images + added * torch.stack(parts).to(images.device).float().div_(255.0)
