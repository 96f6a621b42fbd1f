"""Checks of what comes in, each fault one sentence; the room's own, since attacks need no data room."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.attacks.batch import Batch
from isthmus.errors import ConfigError, DataError, ModelError
from isthmus.randomness import example_keys


def examples(
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    *,
    targets: Int[Tensor, " n"] | None = None,
    seed: int = 0,
    indices: Int[Tensor, " n"] | None = None,
) -> Batch:
    """Check images and labels, and give each example the key that all its randomness derives from.

    Args:
        images: in [0, 1]; any floating type, attacked in float32.
        labels: classes from 0 up, of any integer type.
        targets: classes to reach, for a targeted attack; none may equal its example's label.
        indices: positions in the data set that the keys are made from, so that a part of it is attacked as
            within the whole; 0..N−1 by default.

    Raises:
        DataError: a type, shape or range is wrong, or there are no examples.
    """
    _check_images(images)
    n, device = images.shape[0], images.device
    chosen = torch.arange(n) if indices is None else integers(indices, n, "indices")
    goals = None if targets is None else integers(targets, n, "targets").to(device)
    classes = integers(labels, n, "labels").to(device)
    if goals is not None and (goals == classes).any():
        row = int((goals == classes).nonzero()[0])
        raise DataError(f"Example {row} has its own label {int(classes[row])} as target; a target is another class.")
    return Batch(images.detach().float(), classes, example_keys(seed, chosen.to(device)), goals)


def check_model(model: object) -> None:
    """Raise a ModelError for anything that is not an ``nn.Module``."""
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"A classifier is an nn.Module from images in [0, 1] to logits; got "
            f"{type(model).__name__}. A function can be called from a small module's forward."
        )


def check_classes(batch: Batch, classes: int) -> None:
    """Raise a DataError where a label or target is not one of the model's ``classes``."""
    for what, values in (("labels", batch.labels), ("targets", batch.targets)):
        if values is not None and int(values.max()) >= classes:
            raise DataError(
                f"The {what} go up to {int(values.max())}, but the model gives {classes} logits "
                f"(classes 0 to {classes - 1})."
            )


def check_proposals(proposals: object, originals: Tensor, label: str) -> Tensor:
    """An attack's proposals as float32, or a ConfigError where they are not one image per example."""
    if not isinstance(proposals, Tensor) or proposals.shape != originals.shape:
        given = tuple(proposals.shape) if isinstance(proposals, Tensor) else type(proposals).__name__
        raise ConfigError(
            f"The attack {label!r} must return one image per example, of shape "
            f"{tuple(originals.shape)}; it returned {given}."
        )
    return proposals.detach().to(originals.device, torch.float32)


def _check_images(images: object) -> None:
    if not isinstance(images, Tensor):
        raise DataError(f"Images must be a torch tensor of shape N×C×H×W; got {type(images).__name__}.")
    if not images.is_floating_point():
        raise DataError(
            f"Images must be floating-point numbers in [0, 1]; got {images.dtype}. Divide 8-bit images by 255."
        )
    if images.dim() != 4:
        raise DataError(f"Images must have the shape N×C×H×W; got {tuple(images.shape)}.")
    if images.numel() == 0:
        raise DataError(f"There are no images to attack: their shape is {tuple(images.shape)}.")
    if not images.isfinite().all():
        raise DataError("The images hold NaN or infinite pixels.")
    low, high = (float(bound) for bound in images.detach().aminmax())
    if low < 0 or high > 1:
        raise DataError(
            f"Images must lie in [0, 1]; these reach from {low:g} to {high:g}. Normalisation belongs "
            "inside the model, and 8-bit images are divided by 255."
        )


def integers(values: object, n: int, what: str) -> Tensor:
    """N integers that are not negative, as int64; a DataError for anything else."""
    if not isinstance(values, Tensor):
        raise DataError(f"The {what} must be a torch tensor of integers; got {type(values).__name__}.")
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise DataError(f"The {what} must be integers; got {values.dtype}.")
    if values.shape != (n,):
        raise DataError(f"The {what} must be one number for each of {n} images; got the shape {tuple(values.shape)}.")
    if int(values.min()) < 0:
        raise DataError(f"The {what} must not be negative; the smallest is {int(values.min())}.")
    return values.detach().long()


def check_whole(value: object, what: str) -> int:
    """Raise a ConfigError where a batch size or a number of processes is not a positive whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{what} must be a positive whole number; got {value!r}.")
    return value


def check_share(value: object, what: str) -> float:
    """Raise a ConfigError where a half-width is not a number between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ConfigError(f"{what} must be a share between 0 and 1, such as 0.01 for ±1%; got {value!r}.")
    return float(value)
