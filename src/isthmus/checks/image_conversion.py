"""Images of any size, grey or RGB, as a classifier takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow converts


def conversion(said: str, given: tuple[int, ...], wanted: tuple[int, ...], otherwise: str) -> str:
    """What is to be done to images of one shape (C, H, W) for another, as a sentence; "" where it is the same.

    Args:
        said: whose images these are.
        otherwise: what to do where channels cannot be converted, as a sentence.

    Raises:
        DataError: other channels than grey or RGB, and not as many.
    """
    if given[0] != wanted[0] and {given[0], wanted[0]} != {1, 3}:
        raise DataError(
            f"Images of {said} have {given[0]} channels and the audited ones have {wanted[0]}; only grey and RGB are "
            f"converted into each other. {otherwise}"
        )
    parts = [f"resampled from {given[1]}×{given[2]} to {wanted[1]}×{wanted[2]} pixels"] * (given[1:] != wanted[1:])
    if given[0] != wanted[0]:
        parts.append("turned into grey" if wanted[0] == 1 else "given their grey value in all three channels")
    return f"Images of {said} were {' and '.join(parts)}." if parts else ""


def adapted(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Images in [0, 1] with other channels (grey to RGB or back) and of another size (bilinear, antialiased).

    Args:
        images: N×C×H×W, C being that of ``shape``, or 1 or 3 where that is 3 or 1.
        shape: channels, height and width.
    """
    from torch.nn.functional import interpolate

    if images.shape[1] != shape[0]:
        grey = images.new_tensor(_GREY)[:, None, None]
        images = images.expand(-1, 3, -1, -1) if shape[0] == 3 else (images * grey).sum(1, keepdim=True)
    if tuple(images.shape[2:]) != shape[1:]:
        images = interpolate(images, size=shape[1:], mode="bilinear", antialias=True)
    return images.clamp(0, 1)
