"""Columns of equal length, one row per example; and the examples under attack in this form."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.attacks.losses import DIRECTED, LOSSES, margin, own
from isthmus.core.randomness import fold


@dataclass
class Rows:
    """Base of dataclasses whose fields are tensors with one row per item, or None for an absent column."""

    def __len__(self) -> int:
        return next(column.shape[0] for column in self.columns().values())

    def columns(self) -> dict[str, Tensor]:
        """The columns that are not None, by name."""
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


@dataclass
class Batch(Rows):
    """Examples, one row each.

    Attributes:
        images: the originals, float32 in [0, 1].
        labels: true classes.
        keys: from which all randomness of an example derives (see :mod:`isthmus.core.randomness`).
        targets: the classes that an attack must reach in a targeted evaluation; None if any wrong class is a success.
        target_class: a class that each row's attack is directed at, −1 for none. Unlike a target it only guides the
            search: any wrong class is a success.
    """

    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    keys: Int[Tensor, " n"]
    targets: Int[Tensor, " n"] | None = None
    target_class: Int[Tensor, " n"] | None = None

    def folded(self, *parts: int | str | Tensor) -> Batch:
        """The same examples with other keys, for one attack, restart, ..."""
        return replace(self, keys=fold(self.keys, *parts))

    def reached(self, logits: Float[Tensor, "n classes"]) -> Bool[Tensor, " n"]:
        """Whether the prediction (the largest logit) is a success: a wrong class, or the target."""
        predicted = logits.argmax(1)
        return predicted != self.labels if self.targets is None else predicted == self.targets

    def margin(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """z_y − max_{j≠y} z_j, or in a targeted evaluation max_{j≠t} z_j − z_t: negative once the attack succeeds."""
        return margin(logits, self.labels) if self.targets is None else -margin(logits, self.targets)

    def ascend(self, loss: str, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """The values to ascend: a loss against the label, directed at the row's target class; or the target.

        Args:
            loss: a name from :data:`isthmus.attacks.losses.LOSSES`.
        """
        if self.targets is not None:
            return -LOSSES[loss](logits, self.targets)
        if self.target_class is None:
            return LOSSES[loss](logits, self.labels)
        directed = self.target_class >= 0
        if directed.all():
            return DIRECTED[loss](logits, self.labels, self.target_class)
        free = LOSSES[loss](logits, self.labels)
        return torch.where(directed, DIRECTED[loss](logits, self.labels, self.target_class.clamp(min=0)), free)

    def difference(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """z_t − z_y for the row's target class (or target), else z_j − z_y for the largest other logit."""
        if self.targets is not None:
            return margin(logits, self.targets)
        if self.target_class is None:
            return -margin(logits, self.labels)
        return torch.where(
            self.target_class >= 0,
            own(logits, self.target_class.clamp(min=0)) - own(logits, self.labels),
            -margin(logits, self.labels),
        )


def per_image(rows: Tensor, like: Tensor) -> Tensor:
    """A column of numbers, shaped so that it multiplies or selects whole images."""
    return rows.view(-1, *[1] * (like.dim() - 1))
