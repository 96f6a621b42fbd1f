"""Identifying an example's partner among those of the batch: categorical generative models (CatGen), InfoNCE.

With scores s_ik = log p(z_i|k) of code i under partner k, −log softmax_k s_ik at k = i is InfoNCE's loss with the
density as its critic (van den Oord et al. 2018; Fischer 2020, §2.6.3), and ln K minus its mean is a lower bound on the
information between codes and partners.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from isthmus.information.gaussians import Gaussian

ROWS = 256
"""Number of codes that are compared with all partners at once, so that memory grows linearly with the batch."""


def among_labels(
    backward: Gaussian, codes: Float[Tensor, "samples n dim"], labels: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """−log softmax_k b(z_i|y_k) at k = i over the labels of the batch, in nats, averaged over samples.

    Examples of one class have the same b, so the sum over K partners has one term for each class, weighted by its
    frequency. This is exact, with O(n·classes) time and memory.

    Args:
        backward: b(z|y) of every class.
        codes: z_i, in float64 to avoid rounding.
        labels: y_i.
    """
    scores = backward.scores(codes)
    often = labels.bincount(minlength=scores.shape[-1]).to(scores.dtype).log()
    own = scores.gather(-1, labels.expand(len(codes), -1).unsqueeze(-1)).squeeze(-1)
    return (torch.logsumexp(scores + often, -1) - own).mean(0).to(backward.mean.dtype)


def among_codes(encoder: Gaussian, codes: Float[Tensor, "samples n dim"]) -> Float[Tensor, " n"]:
    """−log softmax_k e(z_i|x_k) at k = i over the images of the batch, in nats, averaged over samples.

    Compares all n² pairs, :data:`ROWS` codes at a time, and recomputes the scores in the backward pass.

    Args:
        encoder: e(z|x) of every image of the batch.
        codes: z_i, one for each image, in float64 to avoid rounding.
    """
    return torch.stack([_own_loss(encoder, sample) for sample in codes]).mean(0).to(encoder.mean.dtype)


def _own_loss(encoder: Gaussian, codes: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
    def rows(start: int) -> Tensor:
        scores = encoder.scores(codes[start : start + ROWS])
        at = torch.arange(len(scores), device=scores.device)
        loss: Tensor = torch.logsumexp(scores, -1) - scores[at, start + at]
        return loss

    if len(codes) <= ROWS:
        return rows(0)
    return torch.cat([checkpoint(rows, start, use_reentrant=False) for start in range(0, len(codes), ROWS)])


@torch.no_grad()
def partner_logits(partners: Gaussian, codes: Float[Tensor, "samples n dim"]) -> Float[Tensor, "samples n members"]:
    """Log-density of every code under every partner, with the largest of each code shifted to 0; no gradients."""

    def rows(part: Tensor) -> Tensor:
        scores = partners.scores(part)
        return (scores - scores.amax(-1, keepdim=True)).to(partners.mean.dtype)

    return torch.cat([rows(part) for part in torch.split(codes, ROWS, dim=-2)], dim=-2)


def infonce_bound(ce: Tensor, batch: int) -> Float[Tensor, ""]:
    """ln K − ce for a batch of K, in nats: a lower bound on the information between codes and partners."""
    return math.log(batch) - ce.detach()
