"""Heads that turn features into Gaussian codes: e(z|x), and b(z|y) from one-hot labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.information.gaussians import DiagonalGaussian, FullGaussian, Gaussian, IdentityGaussian, float32_at_least
from isthmus.models.backbones.layers import glorot_

Covariance = Literal["identity", "isotropic", "diagonal", "full"]
BackwardKind = Literal["linear", "table", "mlp"]

# Standard deviations at zero parameters. The diagonal encoder starts almost deterministic (σ = softplus(−5), Alemi et
# al. 2017); full covariances and every backward encoder start at 1, where log-densities are moderate.
INITIAL_STD = {"identity": 1.0, "isotropic": 1.0, "diagonal": math.log1p(math.exp(-5.0)), "full": 1.0}
FULL_FLOOR = 1e-5  # keeps the diagonal of L away from 0
# The least standard deviation of a coordinate given those before it, relative to the part that they explain. It bounds
# the condition number of L: in 4 dimensions ‖L⁻¹‖ is at most about 1e8 times the inverse scale of the code, where
# float64 densities are accurate to 1e-6 nats. It matters only if coordinates are nearly copies of one another.
CONDITIONAL_FLOOR = 1e-2


def parameters_per_code(covariance: Covariance, dim: int) -> int:
    """Number of parameters of one Gaussian: dim, 2·dim, or dim + dim·(dim+1)/2 (14 at dim = 4).

    An isotropic one has dim, since all codes share one scale.
    """
    full = dim + dim * (dim + 1) // 2
    return {"identity": dim, "isotropic": dim, "diagonal": 2 * dim, "full": full}[covariance]


def gaussian(raw: Float[Tensor, "*batch parameters"], covariance: Covariance, dim: int, initial_std: float) -> Gaussian:
    """Gaussians from unconstrained parameters: means first, then scales through a softplus shifted to ``initial_std``.

    Computed at least in float32, even under autocast.
    """
    raw = float32_at_least(raw)
    if covariance == "identity":
        return IdentityGaussian(raw)
    if covariance == "isotropic":
        raise ValueError("the scale of an isotropic Gaussian is not among these parameters; use Encoder")
    mean, scale = raw[..., :dim], raw[..., dim:]
    shift = math.log(math.expm1(initial_std))
    if covariance == "diagonal":
        return DiagonalGaussian(mean, _log_softplus(scale + shift))
    rows, columns = torch.tril_indices(dim, dim, device=raw.device)
    empty = raw.new_zeros(*raw.shape[:-1], dim * dim)
    lower = empty.index_copy(-1, rows * dim + columns, scale).reshape(*raw.shape[:-1], dim, dim)
    below = lower.tril(-1)
    own = nn.functional.softplus(lower.diagonal(dim1=-2, dim2=-1) + shift) + FULL_FLOOR
    diagonal = torch.hypot(own, CONDITIONAL_FLOOR * torch.linalg.vector_norm(below, dim=-1))
    return FullGaussian(mean, below + torch.diag_embed(diagonal))


def _log_softplus(a: Tensor) -> Tensor:
    # ln softplus(a) → a as a → −∞; below −15 the two differ by less than 2e-7, and the direct form would reach ln 0.
    return torch.where(a < -15.0, a, nn.functional.softplus(a.clamp(min=-15.0)).log())


class Encoder(nn.Module):
    """e(z|x): one linear layer from features to Gaussian parameters.

    With identity or isotropic covariance and ``dim`` equal to None the features themselves are the means (Fischer &
    Alemi 2020). Isotropic noise has one trained standard deviation for all codes and coordinates (Kolchinsky, Tracey &
    Wolpert 2019). Standard deviations start near :data:`INITIAL_STD`, or exactly at ``initial_std``, independent of the
    features.

    Args:
        std_offset: σ = softplus(s + std_offset), where s is the layer's output: −5 (the default of a diagonal
            covariance) follows Alemi et al. 2017 on MNIST, 0 is the plain softplus. For a full covariance it applies to
            the diagonal of L.

    Raises:
        ValueError: a covariance without the ``dim`` that it needs, or with a ``std_offset`` but no softplus.
    """

    def __init__(
        self,
        features: int,
        dim: int | None,
        covariance: Covariance,
        initial_std: float | None = None,
        std_offset: float | None = None,
    ) -> None:
        super().__init__()
        if std_offset is not None and (covariance not in ("diagonal", "full") or initial_std is not None):
            given = f"covariance {covariance!r}" if initial_std is None else f"initial_std={initial_std:g}"
            raise ValueError(f"std_offset is the offset in a softplus; it does not go with {given}")
        if dim is None and covariance not in ("identity", "isotropic"):
            raise ValueError(f"covariance {covariance!r} needs parameters beside the means: give a dim")
        self.dim = features if dim is None else dim
        self.covariance: Covariance = covariance
        self.initial_std = INITIAL_STD[covariance] if initial_std is None else initial_std
        if std_offset is not None:
            self.initial_std = math.log1p(math.exp(std_offset))
        self.project: nn.Module = nn.Identity()
        if covariance == "isotropic":
            self.log_std = nn.Parameter(torch.tensor(math.log(self.initial_std)))
        if dim is not None:
            layer = self.project = glorot_linear(features, parameters_per_code(covariance, dim))
            if initial_std is not None:
                nn.init.zeros_(layer.weight[dim:].detach())

    def forward(self, features: Float[Tensor, "n features"]) -> Gaussian:
        """Gaussians for a batch of features."""
        if self.covariance == "isotropic":
            mean = float32_at_least(self.project(features))
            return DiagonalGaussian(mean, self.log_std.to(mean.dtype).expand_as(mean))
        return gaussian(self.project(features), self.covariance, self.dim, self.initial_std)


def gaussians_of(head: nn.Module, features: Float[Tensor, "*batch features"]) -> Gaussian:
    """The Gaussians that a head gives for features, at least in float32, even under autocast."""
    with torch.autocast(features.device.type, enabled=False):
        encoded: Gaussian = head(float32_at_least(features))
    return encoded


class BackwardEncoder(nn.Module):
    """b(z|y): Gaussians for all classes at once.

    Args:
        kind: "linear" in the one-hot label (the papers' form); a "table" with a row for each class, the same without
            the shared bias; or an "mlp" of two ELU layers.
    """

    one_hot: Tensor

    def __init__(self, num_classes: int, dim: int, covariance: Covariance, kind: BackwardKind) -> None:
        super().__init__()
        self.dim, self.covariance = dim, covariance
        self.register_buffer("one_hot", torch.eye(num_classes), persistent=False)
        outputs = parameters_per_code(covariance, dim)
        forms: dict[BackwardKind, Callable[[int, int], nn.Module]] = {
            "linear": glorot_linear,
            "table": Table,
            "mlp": elu_mlp,
        }
        self.layers = forms[kind](num_classes, outputs)

    def forward(self) -> Gaussian:
        """The Gaussians of all classes, as a batch."""
        return gaussian(self.layers(self.one_hot), self.covariance, self.dim, initial_std=1.0)


class Table(nn.Module):
    """A row of parameters for each class, Glorot-uniform like the weights of a linear layer on one-hot labels."""

    def __init__(self, classes: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, outputs))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, one_hot: Float[Tensor, "classes classes"]) -> Float[Tensor, "classes outputs"]:
        """The rows of all classes in order, which equal the product with their one-hot labels."""
        return self.weight


def glorot_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer with the initialisation of the papers' frameworks: Glorot-uniform weights, zero biases."""
    layer = nn.Linear(inputs, outputs)
    glorot_(layer)
    return layer


def elu_layers(inputs: int, width: int = 64) -> list[nn.Module]:
    """Two hidden ELU layers."""
    return [glorot_linear(inputs, width), nn.ELU(), glorot_linear(width, width), nn.ELU()]


def elu_mlp(inputs: int, outputs: int, width: int = 64) -> nn.Sequential:
    """Two hidden ELU layers of 64 (the head of Fischer 2020's Fashion-MNIST models)."""
    return nn.Sequential(*elu_layers(inputs, width), glorot_linear(width, outputs))


def relu_mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Hidden ReLU layers of these widths, and a linear output layer."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [glorot_linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, glorot_linear(inputs, outputs))
