"""Columns of equal length, one row each: how the queue, attacks and results keep what belongs to an example."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass
class Rows:
    """Base of dataclasses whose fields are tensors with one row per item, or None for a column that is not there."""

    def __len__(self) -> int:
        return next(column.shape[0] for column in self.columns().values())

    def columns(self) -> dict[str, Tensor]:
        """The columns that are there, by name."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: column for name, column in pairs if column is not None}

    def take(self, rows: Tensor) -> Self:
        """These rows (positions, or where a mask is true), as a copy."""
        if rows.dtype == torch.bool:
            rows = rows.nonzero().squeeze(1)
        # on a CPU several times as fast as indexing
        return self._with({name: c.index_select(0, rows.to(c.device)) for name, c in self.columns().items()})

    def put(self, rows: Tensor, other: Self) -> None:
        """Overwrite these rows, in place."""
        for name, column in self.columns().items():
            column[rows.to(column.device)] = getattr(other, name).to(column.device)

    def joined(self, other: Self) -> Self:
        """These rows and another's below them."""
        return self._with({name: torch.cat([c, getattr(other, name)]) for name, c in self.columns().items()})

    def to(self, device: torch.device) -> Self:
        """The same rows on another device."""
        return self._with({name: column.to(device) for name, column in self.columns().items()})

    def _with(self, columns: dict[str, Any]) -> Self:
        return replace(self, **columns)


def per_image(rows: Tensor, like: Tensor) -> Tensor:
    """A column of numbers, shaped so that it multiplies or selects whole images."""
    return rows.view(-1, *[1] * (like.dim() - 1))
