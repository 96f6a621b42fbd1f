"""Maximum mean discrepancy (MMD), and label information in a representation by it ("Guess First", eqs. 3 and 7).

The kernel is Gaussian, k(u, v) = exp(−‖u − v‖²/2σ²), or a mean of several Gaussians. All quantities are sums of kernel
values over pairs of examples. They are computed in blocks of rows, which are recomputed in the backward pass, so memory
grows with N rather than N².
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from isthmus.core.errors import DataError, unknown
from isthmus.information.gaussians import float32_at_least

Pairing = Literal["matched_vs_rest", "matched_vs_all", "all_classes"]
BLOCK = 2**22
"""Number of kernel values per block."""
MEDIAN_ROWS = 100
"""Number of examples that the median heuristic uses."""


def mmd2(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"],
    sigma: float | None = None,
    *,
    unbiased: bool = False,
    bandwidths: Sequence[float] = (1.0,),
) -> Float[Tensor, ""]:
    """MMD² of two samples (eq. 7; Gretton et al. 2012, eqs. 3 and 5).

    Args:
        a, b: the samples, each of at least two examples.
        sigma: width of the kernel; None means the median distance within the union of both samples.
        unbiased: omit each example's kernel with itself, so that the expectation is 0 for equal distributions; the
            value may be negative. The biased form is never negative, up to rounding.
        bandwidths: the kernel is the mean of the kernels with these multiples of sigma.

    Raises:
        DataError: a sample with fewer than two examples, different dimensions, or a width that is not positive.
    """
    if a.dim() != 2 or b.dim() != 2 or len(a) < 2 or len(b) < 2 or a.shape[1] != b.shape[1]:
        raise DataError(
            f"MMD needs two samples, n×d and m×d, of at least two examples each; got {tuple(a.shape)} and "
            f"{tuple(b.shape)}."
        )
    both = torch.cat([a, b])[None]
    first = torch.arange(len(both[0]), device=a.device) < len(a)
    groups = torch.stack([first, ~first], -1)[None]
    return _differences(both, groups, sigma, bandwidths).mmd2(unbiased)[0, 0]


@dataclass(frozen=True)
class LabelInformation:
    """MMD² of a representation between labels, for each hypothesis, in place of the mutual information of eq. 3.

    Attributes:
        biased, unbiased: one number per hypothesis, both with gradients; 0 if not measured.
        measured: whether the batch has enough examples for each hypothesis.
    """

    biased: Float[Tensor, " hypotheses"]
    unbiased: Float[Tensor, " hypotheses"]
    measured: Bool[Tensor, " hypotheses"]


def label_information(
    representations: Float[Tensor, "hypotheses n d"],
    labels: Int[Tensor, " n"],
    pairing: Pairing = "matched_vs_rest",
    *,
    sigma: float | None = None,
    bandwidths: Sequence[float] = (1.0,),
) -> LabelInformation:
    """How well a representation separates the true label under each hypothesis.

    Classes with fewer than two examples, or with fewer than two other examples, are left out.

    Args:
        representations: of the same n examples under each hypothesis; the hypotheses are the classes in order.
        labels: the true labels.
        pairing: which two samples are compared under hypothesis k. "matched_vs_rest": examples of class k with all
            others. "matched_vs_all": with the whole batch; for the biased form this is (1 − π_k)² times the former,
            where π_k is the fraction of class k. "all_classes": every class with the whole batch, averaged over
            classes, as in eq. 3.
        sigma, bandwidths: as in :func:`mmd2`; each hypothesis has its own median.

    Raises:
        DataError: an unknown pairing, representations and labels of shapes that do not match, or a width that is not
            positive.
    """
    if pairing not in get_args(Pairing):
        raise DataError(unknown("pairing", pairing, get_args(Pairing)))
    if representations.dim() != 3 or labels.shape != representations.shape[1:2]:
        raise DataError(
            f"Representations must be hypotheses×n×d, and labels n; got {tuple(representations.shape)} and "
            f"{tuple(labels.shape)}."
        )
    hypotheses = len(representations)
    own = labels == torch.arange(hypotheses, device=labels.device)[:, None]
    everyone = torch.ones_like(own)
    if pairing == "all_classes":
        groups = torch.cat([own, everyone[:1]]).T[None]  # the same under every hypothesis
    else:
        groups = torch.stack([own, ~own if pairing == "matched_vs_rest" else everyone], -1)
    found = _differences(representations, groups, sigma, bandwidths)
    there = found.enough[:, :-1].expand(hypotheses, -1)
    number = there.sum(1).clamp(min=1)
    biased, unbiased = (found.mmd2(kind)[:, :-1].where(there, 0.0).sum(1) / number for kind in (False, True))
    return LabelInformation(biased, unbiased, there.any(1))


@dataclass(frozen=True)
class _Differences:
    """Sums of kernel values within groups, and between each group and the last one, for each hypothesis.

    Attributes:
        within, across: Σ_ij k(z_i, z_j) over i of one group, and j of the same group or of the last one.
        sizes, shared: number of examples in a group, and number of those that are also in the last one.
    """

    within: Float[Tensor, "hypotheses groups"]
    across: Float[Tensor, "hypotheses groups"]
    sizes: Float[Tensor, "hypotheses groups"]
    shared: Float[Tensor, "hypotheses groups"]

    @property
    def enough(self) -> Bool[Tensor, "hypotheses groups"]:
        """Whether a group and the last one have at least two examples."""
        return (self.sizes > 1) & (self.sizes[:, -1:] > 1)

    def mmd2(self, unbiased: bool) -> Float[Tensor, "hypotheses groups"]:
        """MMD² between each group and the last one; meaningless without :attr:`enough` examples."""
        n, m = self.sizes.clamp(min=2), self.sizes[:, -1:].clamp(min=2)
        inside, last = self.within, self.within[:, -1:]
        if not unbiased:
            return inside / n**2 + last / m**2 - 2 * self.across / (n * m)
        # k(z, z) = 1, once for each example of a group
        others = (inside - n) / (n * (n - 1)) + (last - m) / (m * (m - 1))
        return others - 2 * (self.across - self.shared) / (n * m - self.shared)


def _differences(
    samples: Float[Tensor, "hypotheses n d"],
    groups: Bool[Tensor, "#hypotheses n groups"],
    sigma: float | None,
    bandwidths: Sequence[float],
) -> _Differences:
    if (sigma is not None and not sigma > 0.0) or not bandwidths or not all(factor > 0.0 for factor in bandwidths):
        raise DataError(f"Kernel widths must be positive; got sigma={sigma}, bandwidths={tuple(bandwidths)}.")
    with torch.autocast(samples.device.type, enabled=False):
        z = float32_at_least(samples)
        z = z - z.detach().mean(1, keepdim=True)  # distances do not change, and rounding errors are smaller
        members = groups.to(z.dtype)
        widths = median_distance(z) if sigma is None else z.new_full((len(z),), sigma)
        squares = z.square().sum(-1)
        rows = max(1, BLOCK // max(1, z.shape[0] * z.shape[1]))

        def block(start: int) -> Tensor:
            part = slice(start, start + rows)
            distance2 = torch.baddbmm(squares[:, None, :], z[:, part], z.mT, alpha=-2.0) + squares[:, part, None]
            to_groups = _kernel(distance2.clamp(min=0.0), widths, bandwidths) @ members
            own, last = members[:, part], members[:, part, -1:]
            return torch.stack([(own * to_groups).sum(1), (last * to_groups).sum(1)])

        starts = range(0, z.shape[1], rows)
        if len(starts) == 1:
            sums = block(0)
        else:
            sums = z.new_zeros(2, len(z), groups.shape[-1])
            for start in starts:
                sums = sums + checkpoint(block, start, use_reentrant=False)
        return _Differences(sums[0], sums[1], members.sum(1), (members * members[..., -1:]).sum(1))


def _kernel(distance2: Tensor, widths: Tensor, bandwidths: Sequence[float]) -> Tensor:
    scaled = distance2 * (-0.5 / widths.square())[:, None, None]
    kernels = [(scaled / factor**2 if factor != 1.0 else scaled).exp() for factor in bandwidths]
    return kernels[0] if len(kernels) == 1 else torch.stack(kernels).mean(0)


@torch.no_grad()
def median_distance(samples: Float[Tensor, "hypotheses n d"]) -> Float[Tensor, " hypotheses"]:
    """The median distance between at most 100 examples, spread evenly over the batch, without gradients.

    If it is 0, or there is one example, √(d/2) replaces it, half the distance of standard normal samples.
    """
    number, d = samples.shape[1:]
    some = samples[:, torch.linspace(0, number - 1, min(number, MEDIAN_ROWS), device=samples.device).long()]
    fallback = samples.new_full((len(samples),), math.sqrt(d / 2.0))
    rows, columns = torch.triu_indices(some.shape[1], some.shape[1], 1, device=samples.device)
    if len(rows) == 0:
        return fallback
    squares = some.square().sum(-1)
    distance2 = squares[:, :, None] + squares[:, None, :] - 2.0 * some @ some.mT
    median = distance2[:, rows, columns].clamp(min=0.0).median(1).values.sqrt()
    return torch.where(median > 0.0, median, fallback)
