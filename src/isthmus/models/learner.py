"""The interface that training needs: images to logits, and the terms of the loss on a batch."""

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
    """A classifier with its loss.

    Args:
        normalize: applied to images first, so that callers always pass [0, 1]: a module, or (mean, std) with one
            number per channel each.
        log_prior: log p(y) of the training labels in nats, for bounds on the information about them; None means equally
            frequent classes. Saved with the weights.

    Attributes:
        stochastic: whether there is a stochastic mode beside the mean mode.
        configured: the trade-off that the objective's options set, in words. :meth:`loss` warns once if its ``rho``
            replaces it. Empty if there is none.
        kernel_points: number of training images that :meth:`fit_kernel` takes at the start of each epoch; 0 for none.
    """

    log_prior: Tensor | None
    stochastic: bool = False
    configured: str = ""
    kernel_points: int = 0

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
        """The objective's terms on one batch, in nats; minimise ``terms.total``.

        Args:
            images: in [0, 1].
            labels: class indices.
            rho: overrides the objective's trade-off, for schedules; warns if the objective's options set one.
            noise: generator of the sampling noise (None for torch's global one), or a share of a larger batch's noise.
            gather: collects the rows of all processes if these images are one process's share of a batch; the terms
                are then those of the whole batch. None for a single process.

        Raises:
            DataError: images that are no floating-point tensor, or labels that are not one class index per image.
            ModelError: the network fails on images of this shape.
        """

    def trade_off(self, rho: float | Rho | None) -> float | None:
        """ρ of a loss as a number; None means the objective's ρ."""
        number = as_number(rho)
        if number is not None and self.configured:
            log.warning(
                "loss(rho=%.4g) replaces the trade-off that the objective was given, %s.", number, self.configured
            )
            self.configured = ""
        return number

    @contextmanager
    def checked(self, images: Tensor, labels: Tensor) -> Iterator[None]:
        """Check a batch. Errors of the network inside the block name the shape of the images."""
        if not isinstance(images, Tensor) or not images.is_floating_point():
            kind = str(images.dtype) if isinstance(images, Tensor) else type(images).__name__
            raise DataError(f"The images must be a floating-point tensor in [0, 1]; got {kind}.")
        if not isinstance(labels, Tensor) or labels.shape != images.shape[:1] or labels.is_floating_point():
            given = f"{labels.dtype} of {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
            raise DataError(f"The labels must be a tensor of {len(images)} class indices, one per image; got {given}.")
        if self.log_prior is not None and labels.device.type == "cpu":  # on a GPU the check would synchronise
            check_labels(labels.long(), len(self.log_prior))
        try:
            yield
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise ModelError(f"The model fails on images of shape {tuple(images.shape)}: {one_line(error)}") from error

    def fit_kernel(self, images: Float[Tensor, "n c h w"]) -> None:
        """Fit what stays constant for an epoch to these images."""

    def fitted_beside(self) -> list[nn.Parameter]:
        """Parameters that are fitted on detached codes, separately from the loss."""
        return []


def log_prior_of(counts: Sequence[int] | None, num_classes: int) -> Tensor:
    """log p(y) in nats from the number of examples of each class; None means equally frequent classes.

    Raises:
        ConfigError: not one number per class.
    """
    if counts is not None and len(counts) != num_classes:
        raise ConfigError(f"class_counts has {len(counts)} numbers for {num_classes} classes; give one for each.")
    frequencies = torch.ones(num_classes) if counts is None else torch.as_tensor(counts, dtype=torch.float32)
    return (frequencies / frequencies.sum()).log()


def count_features(backbone: nn.Module, given: int | None) -> int:
    """The number of features of a backbone: ``given``, or its attribute ``features`` or ``num_features``.

    Raises:
        ModelError: it is unknown.
    """
    for value in (given, getattr(backbone, "features", None), getattr(backbone, "num_features", None)):
        if isinstance(value, int):
            return value
    raise ModelError(
        f"The number of features of {type(backbone).__name__} is unknown. Pass features=..., or set an integer "
        "attribute 'features' on the backbone."
    )


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
