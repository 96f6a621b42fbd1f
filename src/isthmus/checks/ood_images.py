"""Images that a classifier was not made for: noise, flips, other data sets, a user's folder, adversarial images.

Every image depends on the audit's seed and its own index alone. Images of another size or number of channels are
converted to those that are audited, which the page says, or refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isthmus import metrics
from isthmus.checks.image_conversion import adapted, conversion
from isthmus.checks.ood_sources import Folder, UniformNoise, VerticalFlip
from isthmus.core import registry
from isthmus.core.config import Component
from isthmus.core.errors import DataError
from isthmus.core.types import Metric

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

    from isthmus.checks.context import Context

Progress = Callable[[int, int], None]
ATTACKED = {"quick": 100, "full": 1000}
"""Images that an attack is tried on, by the audit's budget."""

_AT_A_TIME = 2**22  # numbers of noise


@dataclass(frozen=True, eq=False)
class OutImages:
    """Out-of-distribution images, made or converted when they are asked for.

    Attributes:
        name: in the names of metrics and arrays.
        said: in sentences.
        keys: what the noise of the model's answer to each derives from.
        indices: which image of its source each is.
        take: from positions to images in [0, 1], on the audited images' device.
        notice: what was done to them, as a sentence.
        success: share of attacked images for which there is an adversarial one.
    """

    name: str
    said: str
    keys: Int[Tensor, " n"]
    indices: NDArray[np.int64]
    take: Callable[[Tensor], Tensor]
    notice: str = ""
    success: Metric | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, part: slice) -> Tensor:
        import torch

        return self.take(torch.arange(len(self))[part])


def drawn(out: Component, name: str, context: Context, attacked: int | None, progress: Progress) -> OutImages:
    """The images of one out-distribution for an audit.

    Args:
        attacked: how many of the first audited images an attack gets; by the audit's budget where None.

    Raises:
        DataError: images that are missing or cannot be read, or that have channels that cannot be converted.
        ConfigError, ModelError: see :func:`isthmus.attacks.minimal_norm.minimal_norms`.
    """
    if isinstance(out, UniformNoise):
        return _noise(name, context)
    if isinstance(out, VerticalFlip):
        return _flipped(name, context)
    if isinstance(out, Folder):
        return _folder(out, name, context)
    if out.name in registry.names("data"):
        return _data(out, name, context)
    return _adversarial(out, name, context, attacked or ATTACKED[context.budget], progress)


def _keys(keys: Tensor, name: str) -> Tensor:
    """Keys of their own, so that the model's noise on an image is not that on another one of the same index."""
    from isthmus.core import randomness

    return randomness.fold(keys, "ood_images/set", name)


def _positions(context: Context) -> NDArray[np.int64]:
    return np.arange(len(context.labels)) if context.indices is None else context.indices.cpu().numpy()


def _flipped(name: str, context: Context) -> OutImages:
    def take(rows: Tensor) -> Tensor:
        return context.images[rows.to(context.images.device)].flip(-2)

    return OutImages(name, "vertical flips", _keys(context.keys, name), _positions(context), take)


def _noise(name: str, context: Context) -> OutImages:
    import torch

    from isthmus.core import randomness

    keys, shape = _keys(context.keys, name), tuple(context.images.shape[1:])
    size = max(1, _AT_A_TIME // math.prod(shape))

    def take(rows: Tensor) -> Tensor:
        parts = torch.split(keys[rows.to(keys.device)], size)
        return torch.cat([randomness.uniform(part, shape) for part in parts])

    return OutImages(name, "uniform noise", _keys(keys, name), _positions(context), take)


def _data(out: Component, name: str, context: Context) -> OutImages:
    """The test split, or a class-balanced choice of as many as are audited."""
    from isthmus.core import randomness
    from isthmus.data.loading import load
    from isthmus.data.order import balanced

    test = load(out).test
    chosen = balanced(test.labels)[: len(context.labels)]
    keys = randomness.example_keys(context.seed, chosen.to(context.keys.device))
    return _converted(name, name, test.select(chosen).images, chosen.numpy(), _keys(keys, name), context)


def _converted(
    name: str, said: str, images: Tensor, indices: NDArray[np.int64], keys: Tensor, context: Context
) -> OutImages:
    """Bytes of any size as images of the audited size and channels."""
    from isthmus.data.images import as_float

    given, wanted = tuple(images.shape[1:]), tuple(context.images.shape[1:])
    notice = conversion(said, given, wanted, "Leave it out of the check's outs.")

    def take(rows: Tensor) -> Tensor:
        return adapted(as_float(images[rows]), wanted).to(context.images.device)

    return OutImages(name, said, keys, indices, take, notice)


def _folder(out: Folder, name: str, context: Context) -> OutImages:
    import torch
    from PIL import ImageOps
    from PIL.Image import Resampling

    from isthmus.core import randomness
    from isthmus.data.decode import need_pillow, opened

    need_pillow()
    channels, height, width = context.images.shape[1:]
    root = Path(out.path).expanduser().resolve()
    if channels not in (1, 3):
        raise DataError(f"{root}: image files are grey or RGB, and the audited images have {channels} channels.")
    files = _listed(root)
    chosen = np.unique(np.linspace(0, len(files) - 1, min(len(files), len(context.labels))).round().astype(np.int64))
    sizes, decoded = set(), []
    for position in chosen:
        image = opened(files[position], 1 if channels == 1 else 3, str(files[position]))
        sizes.add(image.size)
        fitted = ImageOps.fit(image, (width, height), Resampling.BILINEAR)
        decoded.append(np.asarray(fitted).reshape(height, width, channels))
    images = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2)
    keys = randomness.example_keys(context.seed, torch.from_numpy(chosen).to(context.keys.device))
    found = _converted(name, f"the folder {root.name}", images, chosen, _keys(keys, name), context)
    if sizes == {(width, height)}:
        return found
    return replace(found, notice=f"Images of {found.said} were cut and resampled to {height}×{width} pixels.")


def _listed(root: Path) -> list[Path]:
    from isthmus.data.folder import SUFFIXES

    if not root.is_dir():
        raise DataError(f"There is no folder {root}.")
    found = [path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    files = sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts))
    if not files:
        raise DataError(f"{root} and its folders hold no image ({', '.join(SUFFIXES)}).")
    return files


def _adversarial(out: Component, name: str, context: Context, attacked: int, progress: Progress) -> OutImages:
    """Adversarial images of the mean mode, the nearest in ℓ2 that the attack finds, of images it gets right."""

    from isthmus.attacks.minimal_norm import minimal_norms

    found = minimal_norms(
        context.model,
        context.images[:attacked],
        context.labels[:attacked],
        "l2",
        [out],
        batch_size=context.batch_size,
        seed=context.seed,
        indices=None if context.indices is None else context.indices[:attacked],
        progress=lambda at: progress(int(at.done), int(at.total)),
    )
    tried = found.sizes > 0  # right on the clean image; NaN, without an answer there, compares as false
    won = (tried & found.sizes.isfinite()).nonzero().squeeze(1)
    adversarial = found.adversarial[won]
    success = metrics.proportion(len(won), int(tried.sum()))
    mean = float(found.sizes[won].mean()) if len(won) else math.nan
    size = f", at a mean ℓ2 distance of {mean:.3g}" if len(won) else ""
    notice = f"The attack succeeded on {len(won)} of {int(tried.sum())} images that are classified correctly{size}."
    said = f"adversarial images ({'C&W' if out.name == 'cw' else out.name})"
    return OutImages(
        name,
        said,
        _keys(context.keys[won.to(context.keys.device)], name),
        _positions(context)[won.numpy()],
        lambda rows: adversarial[rows].to(context.images.device),
        notice,
        success,
    )
