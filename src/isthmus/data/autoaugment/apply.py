"""Carrying out what was drawn: stage by stage, all images of a batch that one family of operations
concerns at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from isthmus.data.autoaugment.enhance import color, sharpness
from isthmus.data.autoaugment.geometry import move
from isthmus.data.autoaugment.operations import BYTEWISE, KINDS, LEVELS, MOVING, Operations, cutout_side
from isthmus.data.autoaugment.tables import map_bytes
from isthmus.data.cutout import paint_squares

GREY = (125, 122, 113)
"""What a sub-policy's cutout paints: CIFAR-10's mean colour, in bytes and as Google's released code writes it."""

_GRID = 32
_SIDES = torch.tensor([cutout_side(level) for level in range(LEVELS)], device="cpu")


def apply(images: UInt8[Tensor, "n c h w"], operations: Operations) -> UInt8[Tensor, "n c h w"]:
    """Carry out each image's operations; images of 1 or 3 channels, of any size.

    Args:
        operations: from :func:`isthmus.data.autoaugment.operations.draw`, on the CPU wherever the images are, since
            they say how to group them.
    """
    for stage in zip(*(part.unbind(1) for part in operations), strict=True):
        images = _carry_out(images, torch.stack(stage))
    return images


def _carry_out(images: Tensor, drawn: Int64[Tensor, "3 n"]) -> Tensor:
    """One stage: images sorted by family, each family's stretch changed, and all put back in their places."""
    families = _FAMILY_OF.index_select(0, drawn[0])
    order = families.argsort()
    ends = families.bincount(minlength=len(_FAMILIES)).cumsum(0).tolist()
    drawn, there = drawn.index_select(1, order).to(images.device), order.to(images.device)
    images = images.index_select(0, there)
    for (_, change), first, end in zip(_FAMILIES, [0, *ends], ends, strict=False):
        if first < end:
            images[first:end] = change(images[first:end], *drawn[:, first:end])
    return images.index_select(0, there.argsort())


def _cutout(
    images: UInt8[Tensor, "k c h w"], levels: Int64[Tensor, " k"], variants: Int64[Tensor, " k"]
) -> UInt8[Tensor, "k c h w"]:
    height, width = images.shape[2:]
    centres = torch.stack([variants // _GRID * height // _GRID, variants % _GRID * width // _GRID], 1)
    sides = _SIDES.to(levels.device).index_select(0, levels)
    return paint_squares(images, centres, sides, GREY if images.shape[1] == 3 else GREY[1:2])


_FAMILIES: tuple[tuple[tuple[str, ...], Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]], ...] = (
    (("none",), lambda images, *_: images),
    (BYTEWISE, lambda images, kinds, levels, _: map_bytes(images, kinds, levels)),
    (("color",), lambda images, _, levels, __: color(images, levels)),
    (("sharpness",), lambda images, _, levels, __: sharpness(images, levels)),
    (MOVING, move),
    (("cutout",), lambda images, _, levels, variants: _cutout(images, levels, variants)),
)
_NUMBER = {kind: number for number, (kinds, _) in enumerate(_FAMILIES) for kind in kinds}
_FAMILY_OF = torch.tensor([_NUMBER[kind] for kind in KINDS], device="cpu")
