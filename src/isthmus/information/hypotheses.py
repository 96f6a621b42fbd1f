"""Output of a classifier of label hypotheses on one batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from isthmus.information.codes import Gather


@dataclass(frozen=True)
class Hypotheses:
    """One batch, under every hypothesis about its labels.

    Attributes:
        scores: v(x, y) of every image and label, in float32 at least; softmax_y v is the posterior.
        representations: gives a hidden layer's outputs under each hypothesis, hypotheses × n × d, whose gradient
            stays in the layers that are conditioned up to there. Only called by objectives that use it.
        log_prior: log p(y) of the training labels, in nats; None means equally frequent classes.
    """

    scores: Float[Tensor, "n classes"]
    representations: Callable[[], Float[Tensor, "hypotheses n d"]]
    log_prior: Float[Tensor, " classes"] | None = None

    def whole(self, gather: Gather) -> Hypotheses:
        """A whole batch under every hypothesis, of which these are some rows."""
        return Hypotheses(gather(self.scores, 0), lambda: gather(self.representations(), 1), self.log_prior)

    @property
    def label_entropy(self) -> Float[Tensor, ""]:
        """H(Y) of the prior, in nats."""
        if self.log_prior is None:
            return self.scores.new_tensor(math.log(self.scores.shape[1]))
        return -(self.log_prior.exp() * self.log_prior).nan_to_num(0.0).sum()
