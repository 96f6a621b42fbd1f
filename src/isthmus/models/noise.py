"""Sources of the noise of codes: a generator, or a process's share of the noise of a whole batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NoiseShare:
    """The noise of some rows of a batch, as drawn for the whole batch.

    The noise of an example then depends on its position in the whole batch, not on the number of processes or parts.

    Attributes:
        generator: draws the noise of the whole batch.
        batch: number of examples in the whole batch.
        rows: the rows of this share.
    """

    generator: torch.Generator
    batch: int
    rows: slice


Noise = torch.Generator | NoiseShare | None
"""None means torch's global generator."""


def standard_normal(noise: Noise, samples: int, n: int, dim: int, like: Tensor) -> Tensor:
    """Standard normal numbers, samples × n × dim, in the dtype and on the device of ``like``."""
    if not isinstance(noise, NoiseShare):
        return torch.randn((samples, n, dim), generator=noise, device=like.device, dtype=like.dtype)
    shape = (samples, noise.batch, dim)
    return torch.randn(shape, generator=noise.generator, device=like.device, dtype=like.dtype)[:, noise.rows]
