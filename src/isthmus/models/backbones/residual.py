"""Pre-activation residual networks: the block, its shortcuts, and the trunk made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from isthmus.models.backbones.layers import conv1x1, conv3x3, delta_orthogonal_, he_

Shortcut = Literal["conv", "pad"]
Init = Literal["he", "delta_orthogonal"]
_INITIALISERS = {"he": he_, "delta_orthogonal": delta_orthogonal_}


class PoolPad(nn.Module):
    """A shortcut without parameters: average pooling for the stride, zero channels for the width."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.extra = outputs - inputs
        self.pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()

    def forward(self, x: Float[Tensor, "n inputs h w"]) -> Float[Tensor, "n outputs h2 w2"]:
        """Pooled and widened, with half of the new channels before the old ones and half after."""
        before = self.extra // 2
        return nn.functional.pad(self.pool(x), (0, 0, 0, 0, before, self.extra - before))


class PreActivationBlock(nn.Module):
    """x + conv(act(conv(act(x)))), act = norm and ReLU (He et al. 2016b, "Identity mappings").

    If the shape changes, the shortcut maps act(x) through a 1×1 convolution or :class:`PoolPad`. With ``init`` "he" and
    no norm, the last convolution starts at zero, so that a block starts as its shortcut and deep networks are stable
    (Zhang et al. 2019, "Fixup", and De & Smith 2020).
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, norm: bool, shortcut: Shortcut, init: Init = "he"
    ) -> None:
        super().__init__()
        self.activate_in = activation(inputs, norm)
        self.conv_in = conv3x3(inputs, outputs, stride)
        self.activate_out = activation(outputs, norm)
        self.conv_out = conv3x3(outputs, outputs)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = conv1x1(inputs, outputs, stride) if shortcut == "conv" else PoolPad(inputs, outputs, stride)
        _INITIALISERS[init](self)
        if init == "he" and not norm:
            nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Float[Tensor, "n inputs h w"]) -> Float[Tensor, "n outputs h2 w2"]:
        """The block's output."""
        active = self.activate_in(x)
        straight = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = straight + self.conv_out(self.activate_out(self.conv_in(active)))
        return out


def activation(channels: int, norm: bool) -> nn.Module:
    """ReLU, after batch normalisation if ``norm``."""
    # not in place: without norm the input is also the shortcut
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()) if norm else nn.ReLU()


class Trunk(nn.Module):
    """Stem, groups of blocks, last activation and global average pooling: images to ``features`` numbers.

    Args:
        widths: channels of the stem, then of each group; the last are the features.
        strides: of the first block of each group.
        blocks: per group.
        init: of the convolutions, as in :class:`PreActivationBlock`.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        strides: Sequence[int],
        blocks: Sequence[int],
        norm: bool,
        shortcut: Shortcut,
        init: Init = "he",
    ) -> None:
        super().__init__()
        self.stem = conv3x3(channels, widths[0])
        _INITIALISERS[init](self.stem)
        layers: list[nn.Module] = []
        for i, (stride, count) in enumerate(zip(strides, blocks, strict=True)):
            for j in range(count):
                inputs, step = (widths[i], stride) if j == 0 else (widths[i + 1], 1)
                layers.append(PreActivationBlock(inputs, widths[i + 1], step, norm, shortcut, init))
        self.blocks = nn.Sequential(*layers)
        self.activate = activation(widths[-1], norm)
        self.features = widths[-1]

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n features"]:
        """Features of normalised images."""
        maps: Tensor = self.activate(self.blocks(self.stem(images)))
        return maps.mean(dim=(2, 3))
