"""Examples as attacks are given them: images, labels, keys, and what would be a success."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.attacks.engine.rows import Rows
from isthmus.attacks.losses import DIRECTED, LOSSES, margin, own
from isthmus.core.randomness import fold


@dataclass
class Batch(Rows):
    """Examples, one row each.

    Attributes:
        images: the originals, float32 in [0, 1].
        labels: true classes.
        keys: what all randomness of the example derives from (see :mod:`isthmus.core.randomness`).
        targets: the classes an attack must reach, for a targeted evaluation; None where any wrong class will do.
        aims: a class each row's attack is directed at, −1 for none. Unlike a target it is only a way to search:
            any wrong class is a success.
    """

    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    keys: Int[Tensor, " n"]
    targets: Int[Tensor, " n"] | None = None
    target_class: Int[Tensor, " n"] | None = None

    def folded(self, *parts: int | str | Tensor) -> Batch:
        """The same examples with keys of their own for one attack, restart, ..."""
        return replace(self, keys=fold(self.keys, *parts))

    def reached(self, logits: Float[Tensor, "n classes"]) -> Bool[Tensor, " n"]:
        """Whether the prediction (the largest logit) is what is wanted: a wrong class, or the target."""
        predicted = logits.argmax(1)
        return predicted != self.labels if self.targets is None else predicted == self.targets

    def margin(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """z_y − max_{j≠y} z_j, or in a targeted evaluation max_{j≠t} z_j − z_t: negative once the attack succeeds."""
        return margin(logits, self.labels) if self.targets is None else -margin(logits, self.targets)

    def ascend(self, loss: str, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """What to ascend: a loss against the label, directed at the aim where there is one; or towards the target.

        Args:
            loss: a name from :data:`isthmus.attacks.losses.LOSSES`.
        """
        if self.targets is not None:
            return -LOSSES[loss](logits, self.targets)
        if self.target_class is None:
            return LOSSES[loss](logits, self.labels)
        aimed = self.target_class >= 0
        if aimed.all():
            return DIRECTED[loss](logits, self.labels, self.target_class)
        free = LOSSES[loss](logits, self.labels)
        return torch.where(aimed, DIRECTED[loss](logits, self.labels, self.target_class.clamp(min=0)), free)

    def difference(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """z_t − z_y for the row's aim (or target), else z_j − z_y for the largest other logit: the nearest decision."""
        if self.targets is not None:
            return margin(logits, self.targets)
        if self.target_class is None:
            return -margin(logits, self.labels)
        return torch.where(
            self.target_class >= 0,
            own(logits, self.target_class.clamp(min=0)) - own(logits, self.labels),
            -margin(logits, self.labels),
        )
