"""What training asks of a model: images to logits, and the terms of its loss on a batch."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.core.errors import ConfigError, DataError, ModelError, one_line, out_of_memory
from isthmus.core.tradeoff import Rho, as_number
from isthmus.core.types import Terms
from isthmus.data.images import check_labels
from isthmus.information.codes import Gather
from isthmus.models.backbones.layers import Normalize
from isthmus.models.noise import Noise

log = logging.getLogger(__name__)

Normalizer = nn.Module | tuple[Sequence[float], Sequence[float]]
"""A module from images to images, or mean and standard deviation of each channel."""


class Learner(nn.Module, ABC):
    """A classifier that knows its own loss.

    Args:
        normalize: applied to images first, so that callers always hand in [0, 1]: a module, or (mean, std) with one
            number per channel each.
        log_prior: log p(y) of the training labels in nats, for bounds on the information about them; equally frequent
            classes where None. Saved with the weights.

    Attributes:
        stochastic: whether its answer has a random mode beside the mean one.
        configured: the trade-off that the objective's options name, in words; :meth:`loss` warns once that its ``rho``
            replaces it. Empty where nothing is to be said.
    """

    log_prior: Tensor | None
    stochastic: bool = False
    configured: str = ""

    def __init__(self, normalize: Normalizer | None, log_prior: Float[Tensor, "classes"] | None) -> None:
        super().__init__()
        self.register_buffer("log_prior", log_prior)
        self.normalize = _normalizer(normalize)

    @abstractmethod
    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Logits for images in [0, 1]."""

    @abstractmethod
    def loss(
        self,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, "n"],
        rho: float | Rho | None = None,
        noise: Noise = None,
        gather: Gather | None = None,
    ) -> Terms:
        """The objective's terms on one batch; minimise ``terms.total``.

        Args:
            images: in [0, 1].
            labels: class indices.
            rho: replaces the objective's own trade-off, for schedules; with a warning if its options name one.
            noise: generator of sampling noise (torch's global one where None), or a share of a larger batch's.
            gather: where these images are a process's share of a batch, gives the rows of all processes; the terms are
                then the whole batch's. None where there are no others.

        Raises:
            DataError: images that are no floating-point tensor, or labels that are not one class index per image.
            ModelError: the network fails on images of this shape.
        """

    def trade_off(self, rho: float | Rho | None) -> float | None:
        """ρ for a loss, as a number; None for the objective's own."""
        number = as_number(rho)
        if number is not None and self.configured:
            log.warning(
                "loss(rho=%.4g) replaces the trade-off that the objective was given, %s.", number, self.configured
            )
            self.configured = ""
        return number

    @contextmanager
    def checked(self, images: Tensor, labels: Tensor) -> Iterator[None]:
        """Check a batch; inside, an error of the network says which images it was given."""
        if not isinstance(images, Tensor) or not images.is_floating_point():
            kind = str(images.dtype) if isinstance(images, Tensor) else type(images).__name__
            raise DataError(f"The images must be a floating-point tensor in [0, 1]; got {kind}.")
        if not isinstance(labels, Tensor) or labels.shape != images.shape[:1] or labels.is_floating_point():
            given = f"{labels.dtype} of {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
            raise DataError(f"The labels must be a tensor of {len(images)} class indices, one per image; got {given}.")
        if self.log_prior is not None and labels.device.type == "cpu":  # elsewhere it would wait for the device
            check_labels(labels.long(), len(self.log_prior))
        try:
            yield
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise ModelError(f"The model fails on images of shape {tuple(images.shape)}: {one_line(error)}") from error

    kernel_points: int = 0
    """Training images that :meth:`fit_kernel` is given at the start of each epoch; 0 where there is nothing to fit."""

    def fit_kernel(self, images: Float[Tensor, "n c h w"]) -> None:
        """Fit what stays the same for an epoch to these images."""

    def fitted_beside(self) -> list[nn.Parameter]:
        """Parameters of what is fitted on detached codes beside the loss, and must not be moved with it."""
        return []


def _normalizer(given: object) -> nn.Module:
    """The module that normalises images.

    Raises:
        ConfigError: neither a module nor a mean and a standard deviation.
    """
    if given is None or isinstance(given, nn.Module):
        return nn.Identity() if given is None else given
    try:
        mean, std = (torch.as_tensor(numbers, dtype=torch.float32).flatten().tolist() for numbers in given)  # type: ignore[attr-defined]
        return Normalize(mean, std)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            "normalize is a module from images to images, or (mean, std) with one number per channel each, such as "
            f"((0.5,), (0.25,)); got {given!r} ({one_line(error)})."
        ) from None
