"""ODIN: confidence at a high temperature, after a step that raises it (Liang et al. 2018, arXiv:1706.02690)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from isthmus import metrics
from isthmus.checks.scores.score import Batch, Floats, OODScore, Scoring, Training


class ODIN(OODScore):
    """1 − max_k softmax(logits/T)_k at x + ε·sign(∇ ln max_k softmax(logits/T)_k).

    The step may leave [0, 1], as in the paper. The paper tunes ε on out-of-distribution images; here it is fixed.

    Attributes:
        temperature: T.
        eps: ε, in units of images in [0, 1].
    """

    argument: ClassVar[str | None] = "eps"
    uses_gradient: ClassVar[bool] = True
    name: Literal["odin"] = "odin"
    temperature: Annotated[float, Field(gt=0)] = 1000.0
    eps: Annotated[float, Field(ge=0)] = 0.0014

    def fit(self, training: Training | None) -> Scoring:
        """Nothing is fitted."""
        return self._score

    def _score(self, batch: Batch) -> Floats:
        options = {"keys": batch.keys} if getattr(batch.model, "takes_keys", False) else {}
        with torch.enable_grad():
            images = batch.images.detach().clone().requires_grad_()
            logits = batch.model(images.clone(), **options).float() / self.temperature
            (gradient,) = torch.autograd.grad(logits.log_softmax(1).amax(1).sum(), images)
        with torch.no_grad():
            moved = batch.images + self.eps * gradient.sign()
            after = batch.model(moved, **options).double().cpu().numpy()
        return metrics.least_confidence(after / self.temperature)
