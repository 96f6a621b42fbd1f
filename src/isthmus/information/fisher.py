"""Fisher information of an output about its image: how fast p(y|x) or e(z|x) changes with x.

J(x) = E[∇ₓ log p(·|x) ∇ₓ log p(·|x)ᵀ], pixels × pixels, where the expectation is over p(·|x). It governs small
perturbations δu of the image (Guess First, arXiv:2001.03311, lemma D.2; Pensia et al. 2020)::

    KL(p(·|x) ‖ p(·|x + δu)) = ½·δ²·uᵀJ(x)u + o(δ²), in nats

Its largest eigenvalue measures the largest change of the output under a small ℓ2 perturbation, and its eigenvector the
direction of that change. Its trace divided by the number of pixels measures the change in a random direction. By lemma
D.1 an upper bound on I(X;Z) bounds ½·E[ln J] from above, up to a constant and for efficient estimators: compression
implies a small Fisher information.

J = BᵀB, where B is the Jacobian of coordinates in which distances are local: half a squared distance is the KL
divergence to second order. J itself is never computed; everything follows from products with B.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import ConfigError, ModelError
from isthmus.information.gaussians import DiagonalGaussian, FullGaussian, Gaussian, IdentityGaussian

MOST_ROWS = 128
"""Up to this many rows of B, all are computed; beyond it, trace and eigenvalue are estimated from products."""

Answer = Tensor | Gaussian
"""Output of a model for n images: logits of p(y|x), n × classes, or Gaussians e(z|x), n × dim."""


@dataclass(frozen=True)
class FisherInformation:
    """Fisher information of n images, in nats per squared unit of ℓ2 distance between images in [0, 1].

    Attributes:
        trace: tr J(x) = Σ of all eigenvalues.
        largest: the largest eigenvalue of J(x).
        direction: its unit eigenvector, shaped like the image, of arbitrary sign; zero if J(x) is zero.
        exact: whether all rows of B were computed. Otherwise ``trace`` is an unbiased estimate, and ``largest`` a lower
            bound by power iteration.
    """

    trace: Float[Tensor, " n"]
    largest: Float[Tensor, " n"]
    direction: Float[Tensor, "n c h w"]
    exact: bool


def fisher_information(
    answer: Callable[[Tensor], Answer],
    images: Float[Tensor, "n c h w"],
    *,
    exact: bool | None = None,
    draws: int = 64,
    steps: int = 50,
    batch_size: int = 64,
    seed: int = 0,
) -> FisherInformation:
    """Trace, largest eigenvalue and its direction of the Fisher information of an answer about each image.

    Args:
        answer: from images to logits of p(y|x) (a classifier in eval mode), or to Gaussians (``model.encode``). The
            output for an image must not depend on other images.
        images: floating point, in [0, 1].
        exact: compute every row of B, with one backward pass each: one row for each class; dim, 2·dim or
            dim·(dim + 3)/2 rows for codes with identity, diagonal or full covariance. None does so up to
            :data:`MOST_ROWS` rows.
        draws: number of random sign vectors for Hutchinson's estimate of the trace, with one backward pass each.
        steps: number of steps of power iteration, with two backward passes each.
        batch_size: number of images per batch.
        seed: of the signs, and of the start of power iteration.

    Raises:
        ConfigError: ``draws``, ``steps`` or ``batch_size`` below 1.
        ModelError: the answer is neither logits nor Gaussians, or does not depend on the image differentiably.
    """
    if min(draws, steps, batch_size) < 1:
        raise ConfigError(f"draws, steps and batch_size must be 1 or more; got {draws}, {steps} and {batch_size}.")
    generator = torch.Generator(device=images.device).manual_seed(seed)
    parts = [_of(answer, part, exact, draws, steps, generator) for part in torch.split(images, batch_size)]
    return FisherInformation(
        trace=torch.cat([part.trace for part in parts]),
        largest=torch.cat([part.largest for part in parts]),
        direction=torch.cat([part.direction for part in parts]),
        exact=all(part.exact for part in parts),
    )


def local_coordinates(answer: Answer, at: Answer) -> Float[Tensor, "n rows"]:
    """Coordinates of an answer whose Jacobian B at ``at`` gives J = BᵀB.

    Args:
        answer: the output of the model, with gradients.
        at: the same output as a constant, around which the coordinates are local.

    Raises:
        ModelError: the output is neither logits, n × at least two classes, nor Gaussians, n × dim.
    """
    if isinstance(answer, Tensor) and isinstance(at, Tensor) and answer.dim() == 2 and answer.shape[1] > 1:
        # Σ_k p_k ∇log p_k ∇log p_kᵀ
        return (0.5 * at.log_softmax(1)).exp() * answer.log_softmax(1)
    if isinstance(answer, Gaussian) and isinstance(at, Gaussian) and answer.mean.dim() == 2:
        mean = at.whiten(answer.mean)
        if isinstance(answer, IdentityGaussian):
            return mean
        if isinstance(answer, DiagonalGaussian):
            return torch.cat([mean, math.sqrt(2.0) * answer.log_std], 1)
        if isinstance(answer, FullGaussian) and isinstance(at, FullGaussian):
            # ½·tr[(Σ⁻¹ dΣ)²] = ½·‖M + Mᵀ‖²_F with M = L⁻¹ dL, which is lower triangular
            m = torch.linalg.solve_triangular(at.factor, answer.factor, upper=False)
            rows, columns = torch.tril_indices(answer.dim, answer.dim, offset=-1, device=m.device)
            return torch.cat([mean, math.sqrt(2.0) * m.diagonal(dim1=1, dim2=2), m[:, rows, columns]], 1)
    given = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
    raise ModelError(
        f"Fisher information is of logits (n x at least 2 classes) or of Gaussians (n x dim), of one image each; the "
        f"answer is {given}."
    )


def _of(
    answer: Callable[[Tensor], Answer],
    images: Tensor,
    exact: bool | None,
    draws: int,
    steps: int,
    generator: torch.Generator,
) -> FisherInformation:
    with torch.enable_grad():
        x = images.detach().clone().requires_grad_()
        found = answer(x)
        at = found.detach() if isinstance(found, Tensor | Gaussian) else found
        r = local_coordinates(found, at)
        if r.shape[0] != len(images):
            raise ModelError(f"The answer is for {r.shape[0]} images; {len(images)} were given.")
        if not r.requires_grad:
            raise ModelError(
                "The answer does not depend on the image differentiably (its gradient is cut off, by no_grad, detach "
                "or rounding); Fisher information needs that gradient."
            )
        if exact if exact is not None else r.shape[1] <= MOST_ROWS:
            return _from_rows(torch.stack([_back(r, x, row) for row in _unit_rows(r)], 1))
        return _from_products(r, x, draws, steps, generator)


def _unit_rows(r: Tensor) -> list[Tensor]:
    return [torch.zeros_like(r).index_fill_(1, torch.tensor(k, device=r.device), 1.0) for k in range(r.shape[1])]


def _back(r: Tensor, x: Tensor, weights: Tensor, create_graph: bool = False) -> Tensor:
    """Bᵀw for each image."""
    (found,) = torch.autograd.grad(r, x, weights, retain_graph=True, create_graph=create_graph, materialize_grads=True)
    return found


def _from_rows(b: Float[Tensor, "n rows c h w"]) -> FisherInformation:
    """From B itself: BBᵀ is small and has the same non-zero eigenvalues as BᵀB."""
    flat = b.flatten(2).double()
    gram = flat @ flat.transpose(1, 2)
    valid = gram.isfinite().all((1, 2))
    values, vectors = torch.linalg.eigh(gram.where(valid[:, None, None], 0.0))
    direction = torch.einsum("nr,nrd->nd", vectors[:, :, -1], flat)
    size = direction.norm(dim=1, keepdim=True)
    direction = (direction / size.where(size > 0, 1.0)).where(valid[:, None], torch.nan)
    largest = values[:, -1].clamp(min=0.0).where(valid, torch.nan)
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)
    return FisherInformation(trace.to(b), largest.to(b), direction.view(len(b), *b.shape[2:]).to(b), exact=True)


def _from_products(r: Tensor, x: Tensor, draws: int, steps: int, generator: torch.Generator) -> FisherInformation:
    """Hutchinson's estimate of tr BBᵀ from Bᵀw, and power iteration w ← BBᵀw, both for all images at once."""
    trace = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for _ in range(draws):
        signs = torch.randint(2, r.shape, generator=generator, device=r.device).to(r) * 2 - 1
        trace += _back(r, x, signs).double().flatten(1).square().sum(1) / draws
    w = torch.randn(r.shape, generator=generator, device=r.device).to(r)
    for _ in range(steps):
        w = (w / _sizes(w)).detach().requires_grad_()
        there = _back(r, x, w, create_graph=True)
        unit = (there / _sizes(there)).detach()
        (w,) = torch.autograd.grad(there, w, unit, retain_graph=True)  # B·unit
    # ‖B·unit‖² = unitᵀJ unit for the direction of the last step
    return FisherInformation(trace.to(x), w.flatten(1).double().square().sum(1).to(x), unit, exact=False)


def _sizes(rows: Tensor) -> Tensor:
    """Norms to divide by, one for each image; 1 if a row is zero."""
    size: Tensor = rows.flatten(1).norm(dim=1).view(-1, *[1] * (rows.dim() - 1))
    return size.where(size > 0, 1.0)
