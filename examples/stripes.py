"""A custom dataset: noisy stripes, horizontal or vertical, 1×8×8."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from isthmus.data.images import ImageData, Split
from isthmus.data.loading import ImageDataset


class Stripes(ImageDataset):
    """``noise`` is the standard deviation of every pixel, in units of images in [0, 1]."""

    noise: Annotated[float, Field(ge=0)] = 0.2
    seed: int = 0

    def read(self) -> ImageData:
        """512 training and 256 test images, as bytes; the same options give the same bytes."""
        generator = torch.Generator().manual_seed(self.seed)
        bands = (0.25 + 0.5 * (torch.arange(8) // 2 % 2)).expand(8, 8)
        patterns = torch.stack([bands.T, bands])

        def split(count: int) -> Split:
            labels = torch.arange(count) % 2
            noisy = patterns[labels] + self.noise * torch.randn(count, 8, 8, generator=generator)
            return Split((noisy.clamp(0, 1) * 255).round().to(torch.uint8).unsqueeze(1), labels)

        return ImageData.of("stripes", split(512), split(256), ("horizontal", "vertical"))
