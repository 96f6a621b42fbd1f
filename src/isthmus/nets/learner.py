"""What training asks of a model: images to logits, and the terms of its loss on a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.information.codes import Gather
from isthmus.nets.noise import Noise
from isthmus.types import Terms


class Learner(nn.Module, ABC):
    """A classifier that knows its own loss.

    Args:
        normalize: applied to images first, so that callers always hand in [0, 1].
        log_prior: log p(y) of the training labels in nats, for bounds on the information about them; equally frequent
            classes where None. Saved with the weights.

    Attributes:
        stochastic: whether its answer has a random mode beside the mean one.
    """

    log_prior: Tensor | None
    stochastic: bool = False

    def __init__(self, normalize: nn.Module | None, log_prior: Float[Tensor, "classes"] | None) -> None:
        super().__init__()
        self.register_buffer("log_prior", log_prior)
        self.normalize = normalize if normalize is not None else nn.Identity()

    @abstractmethod
    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Logits for images in [0, 1]."""

    @abstractmethod
    def loss(
        self,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, "n"],
        rho: float | None = None,
        noise: Noise = None,
        gather: Gather | None = None,
    ) -> Terms:
        """The objective's terms on one batch; minimise ``terms.total``.

        Args:
            images: in [0, 1].
            labels: class indices.
            rho: overrides the objective's own trade-off, for schedules.
            noise: generator of sampling noise (torch's global one where None), or a share of a larger batch's.
            gather: where these images are a process's share of a batch, gives the rows of all processes; the terms are
                then the whole batch's. None where there are no others.
        """

    kernel_points: int = 0
    """Training images that :meth:`fit_kernel` is given at the start of each epoch; 0 where there is nothing to fit."""

    def fit_kernel(self, images: Float[Tensor, "n c h w"]) -> None:
        """Fit what stays the same for an epoch to these images."""

    def fitted_beside(self) -> list[nn.Parameter]:
        """Parameters of what is fitted on detached codes beside the loss, and must not be moved with it."""
        return []
