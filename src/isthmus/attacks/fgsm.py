"""FGSM: one step of size ε of steepest ascent (Goodfellow, Shlens & Szegedy 2015, arXiv:1412.6572)."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from isthmus.attacks.attack import SingleShotAttack
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.threats import Threat


class FGSM(SingleShotAttack):
    """clip(x + ε·sign ∇loss) in ℓ∞, and its analogue in the other norms: one forward and one backward pass.

    Attributes:
        loss: what to ascend; the cross-entropy in the paper.
    """

    name: Literal["fgsm"] = "fgsm"
    loss: Literal["ce", "margin", "log_odds", "dlr"] = "ce"

    def perturb(self, counted_model: CountedModel, batch: Batch, threat: Threat) -> Float[Tensor, "n c h w"]:
        """One step from the image."""
        x = batch.images
        answer = counted_model.query(x, batch.keys, lambda logits: batch.ascend(self.loss, logits))
        return threat.project(threat.step(x, answer.gradient, threat.eps), x)
