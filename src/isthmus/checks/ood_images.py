"""Out-of-distribution images: noise, flips, other data sets, a user's folder, adversarial examples.

Every image depends on the audit's seed and its own index alone. Images of another size or number of channels are
converted to those of the audited images, which the page reports, or refused.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from PIL import ImageOps
from PIL.Image import Resampling
from pydantic import BeforeValidator, Field, SerializeAsAny
from torch import Tensor

from isthmus import metrics
from isthmus.attacks.attack import Attack
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.minimal_norm import minimal_norms
from isthmus.checks.context import Context, Progress
from isthmus.checks.other_data import adapted, conversion
from isthmus.core import randomness, registry
from isthmus.core.config import Component, component, validate
from isthmus.core.errors import ConfigError, DataError, unknown
from isthmus.core.types import Metric
from isthmus.data import openood
from isthmus.data.decode import SUFFIXES, need_pillow, opened
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.data.on_demand import central
from isthmus.data.order import balanced

ATTACKS = ("cw", "ddn", "fab", "fmn")
"""Attacks that search for the smallest ℓ2 perturbation. Other attacks end at the border of the ball, far away."""

ATTACKED = {"quick": 100, "full": 1000}
"""Images that are attacked, by the audit's budget."""

_AT_ONCE = 2**22  # numbers of noise
_MARGIN = 256 / 224  # of photographs, as for ImageNet's own test images


class UniformNoise(Component):
    """Every pixel from U(0, 1); as many images as are audited."""

    name: Literal["uniform_noise"] = "uniform_noise"


class VerticalFlip(Component):
    """The audited images upside down: the hardest of the sets of Fischer 2020, after Alemi et al. 2018."""

    name: Literal["vertical_flip"] = "vertical_flip"


class Folder(Component):
    """Image files anywhere below a folder, in order of their paths; subfolders are not classes.

    At most as many as are audited, evenly spread. Each is cropped to the audited images' proportions around its centre
    and resampled to their size.
    """

    argument: ClassVar[str | None] = "path"
    name: Literal["folder"] = "folder"
    path: Annotated[str, Field(min_length=1)]


class OpenOOD(Component):
    """One test set of OpenOOD 1.5 (:mod:`isthmus.data.openood`), such as ``cifar10/tin`` or ``imagenet/ninco``.

    In the check's ``outs``, ``cifar10/near``, ``cifar10/far`` and ``cifar10`` stand for several. At most as many images
    as are audited, evenly spread over the list. If these are square, the shorter side is scaled to their size, for
    ImageNet's benchmarks to 8/7 of it, and the centre is cut out, as in OpenOOD.

    Attributes:
        set: ``benchmark/set``.
        path: the folder with lists and images; ``ISTHMUS_DATA/openood`` if None.
    """

    argument: ClassVar[str | None] = "set"
    name: Literal["openood"] = "openood"
    set: Annotated[str, Field(min_length=1)]
    path: Annotated[str, Field(min_length=1)] | None = None


class ImageNetO(Component):
    """ImageNet-O (Hendrycks et al. 2021): 2,000 images of classes that are none of ImageNet's 1,000.

    Its authors compare them with the validation images of 200 ImageNet classes. Scaled and cropped as ImageNet's own.

    Attributes:
        path: the folder with the class folders; ``ISTHMUS_DATA/hendrycks/imagenet-o`` if None.
    """

    argument: ClassVar[str | None] = "path"
    name: Literal["imagenet_o"] = "imagenet_o"
    path: Annotated[str, Field(min_length=1)] | None = None


_OWN: dict[str, type[Component]] = {
    "uniform_noise": UniformNoise,
    "vertical_flip": VerticalFlip,
    "folder": Folder,
    "openood": OpenOOD,
    "imagenet_o": ImageNetO,
}
_IMAGENET_O = (
    "Unpack https://people.eecs.berkeley.edu/~hendrycks/imagenet-o.tar in MIRROR/hendrycks and set ISTHMUS_DATA to "
    "MIRROR, or give its folder as imagenet_o:PATH."
)


def expanded(given: object) -> object:
    """A list of out-distributions with each group of OpenOOD replaced by its sets.

    Raises:
        ConfigError: there is no such group or set.
    """
    if not isinstance(given, list | tuple):
        return given
    found: list[object] = []
    for each in given:
        out = configured(each) if isinstance(each, str | Mapping) else each
        if isinstance(out, OpenOOD):
            found += [out.model_copy(update={"set": name}) for name in openood.sets_of(out.set)]
        else:
            found.append(out)
    return found


def configured(given: object) -> Component:
    """An out-distribution from ``"vertical_flip"``, ``"mnist"``, ``"folder:PATH"``, ``"cw:100"`` or a mapping with
    options.

    Raises:
        ConfigError: it is neither one of ours nor a data set nor such an attack, or an option does not fit.
    """
    if isinstance(given, Component):
        return given
    options = given if isinstance(given, Mapping) else {"name": given}
    name, colon, argument = str(options.get("name")).partition(":")
    if own := _OWN.get(name):
        if colon and own.argument is None:
            raise ConfigError(f"The out-distribution {name!r} takes nothing after a colon; got {given!r}.")
        after = {str(own.argument): argument} if colon else {}
        return validate(own, {**options, "name": name, **after}, where=f"out-distribution {name}")
    if name in ATTACKS:
        return component("attacks", given)
    if name in registry.names("data"):
        return component("data", given)
    known = {*_OWN, *registry.names("data"), *ATTACKS}
    raise ConfigError(unknown("out-distribution", name if "name" in options else given, known))


OutDistribution = SerializeAsAny[Annotated[Component, BeforeValidator(configured)]]


def names_of(outs: Sequence[Component]) -> list[str]:
    """A short name for each: a folder's is its own, and the second of a name ends in ``_2``."""
    seen: Counter[str] = Counter()
    names = []
    for out in outs:
        given = f"folder_{Path(out.path).resolve().name}" if isinstance(out, Folder) else out.name
        given = f"openood_{out.set}" if isinstance(out, OpenOOD) else given
        name = re.sub(r"[^A-Za-z0-9]+", "_", given).strip("_").lower()
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names


@dataclass(frozen=True, eq=False)
class OutImages:
    """Out-of-distribution images, made or converted on demand.

    Attributes:
        name: the coordinate ``data`` of metrics, and part of the names of arrays.
        title: in sentences.
        keys: the model's noise on each image derives from them.
        indices: which image of its source each is.
        take: from a slice to images in [0, 1], on the audited images' device.
        notice: how they were made, as a sentence.
        success: fraction of attacked images with an adversarial example.
    """

    name: str
    title: str
    keys: Int[Tensor, " n"]
    indices: NDArray[np.int64]
    take: Callable[[slice], Tensor]
    notice: str = ""
    success: Metric | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, part: slice) -> Tensor:
        return self.take(part)


def out_images(out: Component, name: str, context: Context, attacked: int | None, progress: Progress) -> OutImages:
    """The images of one out-distribution for an audit.

    Args:
        attacked: number of audited images to attack, the first; by the audit's budget if None.

    Raises:
        DataError: images are missing or cannot be read, or have channels that cannot be converted.
        ConfigError, ModelError: see :func:`isthmus.attacks.minimal_norm.minimal_norms`.
    """
    if isinstance(out, UniformNoise):
        return _noise(name, context)
    if isinstance(out, VerticalFlip):
        return _flipped(name, context)
    if isinstance(out, Folder):
        root = Path(out.path).expanduser().resolve()
        return _of_files(_listed(root), f"the folder {root.name}", name, context)
    if isinstance(out, OpenOOD):
        margin = _MARGIN if out.set.startswith("imagenet") else 1.0
        return _of_files(openood.files_of(out.set, out.path), f"OpenOOD {out.set}", name, context, margin)
    if isinstance(out, ImageNetO):
        return _of_files(_listed(_imagenet_o(out.path)), "ImageNet-O", name, context, _MARGIN)
    if out.name in registry.names("data"):
        return _data(out, name, context)
    return _adversarial(out, name, context, attacked or ATTACKED[context.budget], progress)


def _keys(keys: Tensor, name: str) -> Tensor:
    """Distinct keys, so that the model's noise on an image differs from that on another one of the same index."""
    return randomness.fold(keys, "ood_images/set", name)


def _flipped(name: str, context: Context) -> OutImages:
    keys, indices = _keys(context.keys, name), context.positions.cpu().numpy()
    return OutImages(name, "vertical flips", keys, indices, lambda part: context.images[part].flip(-2))


def _noise(name: str, context: Context) -> OutImages:
    keys, shape = _keys(context.keys, name), tuple(context.images.shape[1:])

    def take(part: slice) -> Tensor:
        blocks = torch.split(keys[part], max(1, _AT_ONCE // math.prod(shape)))
        return torch.cat([randomness.uniform(block, shape) for block in blocks])

    return OutImages(name, "uniform noise", _keys(keys, name), context.positions.cpu().numpy(), take)


def _data(out: Component, name: str, context: Context) -> OutImages:
    """The test split, or as many of it as are audited, class-balanced."""
    test = load(out).test
    chosen = balanced(test.labels)[: len(context.labels)]
    keys = randomness.example_keys(context.seed, chosen.to(context.keys.device))
    return _converted(name, name, test.select(chosen).images, chosen.numpy(), _keys(keys, name), context)


def _converted(
    name: str, title: str, images: Tensor, indices: NDArray[np.int64], keys: Tensor, context: Context
) -> OutImages:
    """Bytes of any size as images of the audited size and channels."""
    given, wanted = tuple(images.shape[1:]), tuple(context.images.shape[1:])
    notice = conversion(title, given, wanted, "Leave it out of the check's outs.")

    def take(part: slice) -> Tensor:
        return adapted(as_float(images[part]), wanted).to(context.images.device)

    return OutImages(name, title, keys, indices, take, notice)


def _imagenet_o(path: str | None) -> Path:
    mirror = os.environ.get("ISTHMUS_DATA")
    if path is None and not mirror:
        raise DataError(f"The folder of ImageNet-O is unknown. {_IMAGENET_O}")
    root = Path(path).expanduser() if path else Path(mirror or "").expanduser() / "hendrycks" / "imagenet-o"
    if not root.is_dir():
        raise DataError(f"There is no folder {root} with ImageNet-O. {_IMAGENET_O}")
    return root


def _of_files(files: Sequence[Path], title: str, name: str, context: Context, margin: float | None = None) -> OutImages:
    """At most as many of the files as are audited, evenly spread, cropped and resampled to the audited images' size.

    Args:
        margin: for square images, scale the shorter side to this many times their size before the centre is cut out, as
            the authors of a set do; None crops to the audited images' proportions first.
    """
    need_pillow()
    channels, height, width = context.images.shape[1:]
    if channels not in (1, 3):
        raise DataError(f"{title}: image files are grey or RGB, and the audited images have {channels} channels.")
    chosen = np.unique(np.linspace(0, len(files) - 1, min(len(files), len(context.labels))).round().astype(np.int64))
    sizes, decoded = set(), []
    for position in chosen:
        image = opened(files[position], 1 if channels == 1 else 3, str(files[position]))
        sizes.add(image.size)
        if margin is not None and height == width:
            fitted = central(image, round(margin * height), height, "bilinear")
        else:
            fitted = np.asarray(ImageOps.fit(image, (width, height), Resampling.BILINEAR))
        decoded.append(fitted.reshape(height, width, channels))
    images = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2)
    keys = randomness.example_keys(context.seed, torch.from_numpy(chosen).to(context.keys.device))
    found = _converted(name, title, images, chosen, _keys(keys, name), context)
    if sizes == {(width, height)}:
        return found
    return replace(found, notice=f"Images of {found.title} were cropped and resampled to {height}×{width} pixels.")


def _listed(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"There is no folder {root}.")
    paths = (path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    files = sorted(path for path in paths if not any(part.startswith(".") for part in path.relative_to(root).parts))
    if not files:
        raise DataError(f"{root} and its folders hold no image ({', '.join(SUFFIXES)}).")
    return files


def _adversarial(out: Component, name: str, context: Context, attacked: int, progress: Progress) -> OutImages:
    """Adversarial examples of the mean mode, as near in ℓ2 as the attack finds, of correctly classified images."""
    assert isinstance(out, Attack)
    context = context.first(attacked)
    found = minimal_norms(
        context.model,
        context.images,
        context.labels,
        "l2",
        [out],
        options=RunOptions(
            batch_size=context.batch_size,
            indices=context.indices,
            progress=lambda at: progress(int(at.done), int(at.total)),
        ),
        seed=context.seed,
    )
    tried = found.sizes > 0  # right on the clean image; NaN, without finite logits, compares as false
    broken = (tried & found.sizes.isfinite()).nonzero().squeeze(1)
    adversarial = found.adversarial[broken]
    success = metrics.proportion(len(broken), int(tried.sum()))
    mean = float(found.sizes[broken].mean()) if len(broken) else math.nan
    size = f", at a mean ℓ2 distance of {mean:.3g}" if len(broken) else ""
    notice = f"The attack succeeded on {len(broken)} of {int(tried.sum())} images that are classified correctly{size}."
    title = f"adversarial examples ({'C&W' if out.name == 'cw' else out.name})"
    return OutImages(
        name,
        title,
        _keys(context.keys[broken.to(context.keys.device)], name),
        context.positions.cpu().numpy()[broken.numpy()],
        lambda part: adversarial[part].to(context.images.device),
        notice,
        success,
    )
