"""Bounds on I(X;Z) from the encoder's own densities, in nats.

With A_ij = log e(z_i|x_j) over a batch of K examples (Poole et al. 2019; "InfoNCE with a tractable encoder"):

* lower: mean_i [A_ii − ln (1/K) Σ_j e^A_ij], at most I(X;Z) and at most ln K; the sum includes i.
* upper: mean_i [A_ii − ln 1/(K−1) Σ_{j≠i} e^A_ij], leave-one-out, at least I(X;Z) in expectation.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.information.gaussians import Gaussian

ROWS = 1024
"""Rows of A per block, for one sample at a time, so that memory does not grow with K² or the number of samples."""


def rate_sandwich(
    encoder: Gaussian, noise: Float[Tensor, "*samples n dim"]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Per-example terms of the InfoNCE lower and the leave-one-out upper bound on I(X;Z).

    Args:
        encoder: e(z|x) for the batch of n examples.
        noise: standard normal noise of the samples z_i = μ_i + L_i·noise_i; terms are averaged over leading sample
            dimensions. A_ii is computed from it, and all other pairs from z_i in float64.

    Returns:
        Two float64 tensors; their means are the bounds. The upper terms are +inf for a single example.
    """
    encoder = encoder.detach().double()
    samples = noise.detach().double().reshape(-1, *noise.shape[-2:])
    pairs = [_one_sample(encoder, sample) for sample in samples]
    return torch.stack([lower for lower, _ in pairs]).mean(0), torch.stack([upper for _, upper in pairs]).mean(0)


def _one_sample(encoder: Gaussian, noise: Tensor) -> tuple[Tensor, Tensor]:
    count = noise.shape[0]
    codes, known = encoder.sample(noise), encoder.log_prob_of(noise)
    lower, upper = [], []
    for start in range(0, count, ROWS):
        scores = encoder.scores(codes[start : start + ROWS])
        rows = torch.arange(scores.shape[0], device=scores.device)
        own = known[start : start + ROWS]
        scores[rows, start + rows] = -math.inf
        others = torch.logsumexp(scores, -1)
        lower.append(own - torch.logaddexp(own, others) + math.log(count))
        upper.append(own - others + math.log(max(count - 1, 1)))
    return torch.cat(lower), torch.cat(upper)
