"""Other images as directions: of each other example, as much as the ball allows.

A model whose answer jumps far away from the image, as one that looks for the nearest image it knows, gives a local
search nothing to go by. Costs no query to find where to go.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.attacks.attack import Attack
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.threats import Threat
from isthmus.core.config import Component


class Neighbours(Component):
    """Options.

    Attributes:
        most: nearest images of other labels that are tried, one forward pass each.
    """

    name: Literal["neighbours"] = "neighbours"
    most: int = 20


def attack(examples: Batch, config: Neighbours | None = None) -> Attack:
    """Towards the nearest (ℓ2) of these examples that have another label."""

    def perturb(
        config: Neighbours, counted_model: CountedModel, batch: Batch, threat: Threat
    ) -> Float[Tensor, "n c h w"]:
        others = examples.images.to(batch.images)
        distances = torch.cdist(batch.images.flatten(1), others.flatten(1))
        same = batch.labels[:, None] == examples.labels.to(batch.labels.device)[None]
        nearest = distances.masked_fill(same, torch.inf).topk(min(config.most, len(others)), largest=False).indices
        best, least = batch.images.clone(), torch.full_like(distances[:, 0], torch.inf)
        for there in nearest.T:
            x = threat.project(others[there], batch.images)
            margin = batch.margin(counted_model.query(x, batch.keys, None).logits)
            better = margin < least
            best[better], least[better] = x[better], margin[better]
        return best

    return Attack("neighbours", config or Neighbours(), perturb=perturb)
