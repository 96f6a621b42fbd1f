"""FGSM: one step of size ε along the steepest ascent (Goodfellow, Shlens & Szegedy 2015, arXiv:1412.6572)."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.threats import Threat
from isthmus.core.config import Component


class Config(Component):
    """Options of FGSM: it has none but the loss, which is the cross-entropy in the paper."""

    name: Literal["fgsm"] = "fgsm"
    loss: Literal["ce", "margin", "log_odds", "dlr"] = "ce"


def perturb(config: Config, counted_model: CountedModel, batch: Batch, threat: Threat) -> Float[Tensor, "n c h w"]:
    """clip(x + ε·sign ∇CE) in ℓ∞, and its like in the other norms: one forward and one backward pass."""
    x = batch.images
    answer = counted_model.query(x, batch.keys, lambda logits: batch.ascend(config.loss, logits))
    return threat.project(threat.step(x, answer.gradient, threat.eps), x)
