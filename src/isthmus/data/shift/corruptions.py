"""What the benchmarks of common corruptions have in common: options that name one corruption at one severity."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from isthmus.core.errors import unknown
from isthmus.data.shift.loading import ShiftConfig
from isthmus.metrics.corruption import GROUPS


class CorruptionConfig(ShiftConfig):
    """Options of a set of corrupted images.

    Attributes:
        corruption: as the published files are called: "gaussian_noise", …, "jpeg_compression", or one of the four
            that do not count in an mCE ("speckle_noise", "gaussian_blur", "spatter", "saturate").
        severity: 1 to 5.
    """

    corruption: str
    severity: Annotated[int, Field(ge=1, le=5)]

    @field_validator("corruption")
    @classmethod
    def _known(cls, value: str) -> str:
        known = [name for names in GROUPS.values() for name in names]
        if value not in known:
            raise ValueError(unknown("corruption", value, known))
        return value


def group_of(corruption: str) -> str:
    """The archive that a corruption comes in: "noise", "blur", "weather", "digital" or "extra"."""
    return next(group for group, names in GROUPS.items() if corruption in names)
