"""Apply drawn operations stage by stage, with each family of operations on all of its images at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from isthmus.data.autoaugment.color import color, map_bytes, sharpness
from isthmus.data.autoaugment.geometry import move
from isthmus.data.autoaugment.operations import BYTEWISE, KINDS, LEVELS, MOVING, STRENGTHS, Operations
from isthmus.data.crops import paint_squares

GREY = (125, 122, 113)
"""Colour of a sub-policy's cutout: the mean of CIFAR-10, in bytes, as in Google's released code."""

_GRID = 32
_SIDES = torch.tensor([STRENGTHS["cutout"](level) for level in range(LEVELS)], device="cpu")


def apply(images: UInt8[Tensor, "n c h w"], operations: Operations) -> UInt8[Tensor, "n c h w"]:
    """Apply each image's operations; images have 1 or 3 channels and any size.

    Args:
        operations: from :func:`isthmus.data.autoaugment.operations.draw`, on the CPU even for images elsewhere, since
            they determine the grouping.
    """
    for stage in zip(*(part.unbind(1) for part in operations), strict=True):
        images = _apply_stage(images, torch.stack(stage))
    return images


def _apply_stage(images: Tensor, drawn: Int64[Tensor, "3 n"]) -> Tensor:
    """One stage: sort images by family, change each family's range, and restore the order."""
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
