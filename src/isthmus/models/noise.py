"""Where the noise of codes comes from: a generator, or this process's share of what one process would draw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """The noise of some rows of a batch, as whoever sees the whole batch draws it.

    An example's noise then depends on its place in the whole batch, and not on how many processes or parts share it.

    Attributes:
        generator: where the whole batch's noise comes from.
        batch: examples in the whole batch.
        rows: those that this share holds.
    """

    generator: torch.Generator
    batch: int
    rows: slice


Noise = torch.Generator | Share | None
"""None is torch's global generator."""


def standard_normal(noise: Noise, samples: int, n: int, dim: int, like: Tensor) -> Tensor:
    """Standard normal numbers, samples × n × dim, of the type and on the device of ``like``."""
    if not isinstance(noise, Share):
        return torch.randn((samples, n, dim), generator=noise, device=like.device, dtype=like.dtype)
    shape = (samples, noise.batch, dim)
    return torch.randn(shape, generator=noise.generator, device=like.device, dtype=like.dtype)[:, noise.rows]
