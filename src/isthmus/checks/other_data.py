"""Another data set as the input of a classifier: its classes, and images of another size, grey or RGB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny
from torch import Tensor
from torch.nn.functional import interpolate

from isthmus.checks.context import Context
from isthmus.checks.trained_on import TrainedOn
from isthmus.core.config import Component, component
from isthmus.core.errors import DataError
from isthmus.data.images import ImageData
from isthmus.data.loading import load
from isthmus.data.shift.shifted import relabelled

DataSet = SerializeAsAny[Annotated[Component, BeforeValidator(lambda given: component("data", given))]]
"""An option that names a data set."""

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow converts


def labels_for(labels: Tensor, data: ImageData, classes: Sequence[str] | None, num_classes: int) -> Tensor:
    """Labels of a data set as positions in the classifier's classes.

    Args:
        classes: names of the classifier's classes in the order of its logits; the data set's own if None.

    Raises:
        DataError: the data set has other classes.
    """
    if classes is None and data.num_classes != num_classes:
        raise DataError(
            f"{data.name} has {data.num_classes} classes, and the classifier {num_classes}; give `classes`, their "
            "names in the order of the classifier's logits, or name data with the same classes."
        )
    if classes is not None and len(classes) != num_classes:
        raise DataError(f"`classes` names {len(classes)} classes, and the classifier has {num_classes}.")
    return relabelled(labels, data.classes, classes, data.name)[0]


def known_training(data: Component | None, context: Context) -> TrainedOn | None:
    """The training examples of a data set or, if none is named, those that the audit was given.

    Raises:
        DataError: the data set has other classes or images of another shape than the audit.
    """
    if data is None:
        return context.trained_on
    found = load(data)
    shape = tuple(context.images.shape[1:])
    if found.shape != shape or found.num_classes != context.num_classes:
        raise DataError(
            f"{found.name} has {found.num_classes} classes and images of {shape_text(found.shape)}, and the "
            f"audit {context.num_classes} classes and images of {shape_text(shape)} (C, H, W); name the "
            "data that the classifier was trained on, with the options it was trained with."
        )
    return TrainedOn(found.training_split(), found.fingerprint)


def shape_text(shape: Sequence[int]) -> str:
    """ "3×32×32"."""
    return "×".join(map(str, shape))


def conversion(source: str, given: tuple[int, ...], wanted: tuple[int, ...], otherwise: str) -> str:
    """The conversion of images of one shape (C, H, W) to another, as a sentence; "" if the shapes are equal.

    Args:
        source: name of the images' source.
        otherwise: what to do if channels cannot be converted, as a sentence.

    Raises:
        DataError: different numbers of channels, and not grey and RGB.
    """
    if given[0] != wanted[0] and {given[0], wanted[0]} != {1, 3}:
        raise DataError(
            f"Images of {source} have {given[0]} channels and the audited ones have {wanted[0]}; only grey and RGB are "
            f"converted into each other. {otherwise}"
        )
    parts = [f"resampled from {given[1]}×{given[2]} to {wanted[1]}×{wanted[2]} pixels"] * (given[1:] != wanted[1:])
    if given[0] != wanted[0]:
        parts.append("converted to grey" if wanted[0] == 1 else "given their grey value in all three channels")
    return f"Images of {source} were {' and '.join(parts)}." if parts else ""


def adapted(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Images in [0, 1] with other channels (grey to RGB or back) and of another size (bilinear, antialiased).

    Args:
        images: N×C×H×W; C is that of ``shape``, or 1 and 3 in either order.
        shape: channels, height and width.
    """
    if images.shape[1] != shape[0]:
        grey = images.new_tensor(_GREY)[:, None, None]
        images = images.expand(-1, 3, -1, -1) if shape[0] == 3 else (images * grey).sum(1, keepdim=True)
    if tuple(images.shape[2:]) != shape[1:]:
        images = interpolate(images, size=shape[1:], mode="bilinear", antialias=True)
    return images.clamp(0, 1)
