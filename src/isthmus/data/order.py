"""Fixed orders of examples, independent of process, machine and torch version."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from isthmus.core.randomness import fold

_FIXED = 20130907  # an arbitrary number; it determines the test split of digits and the subsets of stored results


def shuffled(keys: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """A permutation of 0 … N − 1 drawn from one key per example."""
    return keys.argsort(stable=True)


def balanced(labels: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """A fixed shuffle in which every prefix has equally many examples of each class (±1), until a class is exhausted.

    Results on 100 and on 1000 examples share the first 100.
    """
    order = _fixed_shuffle(len(labels))
    return order[_ranks(labels)[order].argsort(stable=True)]


def balanced_like(
    labels: Int64[Tensor, " n"], others: Int64[Tensor, " m"], most: int | None = None
) -> Int64[Tensor, " k"]:
    """Positions of as many examples of each class as ``others`` has, or of all if there are fewer.

    Both sets then have the same class frequencies, as far as the data allow it. The choice is always the same: the
    first of each class in the order of :func:`balanced`. A smaller ``most`` keeps the frequencies and gives the first
    of the same positions.
    """
    labels, order = labels.cpu(), balanced(labels.cpu())
    ranks, wanted = _ranks(labels)[order], others.cpu().bincount(minlength=int(labels.max()) + 1)[labels[order]]
    kept = ranks < wanted
    progress = (ranks[kept] + 0.5) / wanted[kept]
    return order[kept][progress.argsort(stable=True)][:most]


def stratified(labels: Int64[Tensor, " n"], fraction: float) -> tuple[Int64[Tensor, " k"], Int64[Tensor, " m"]]:
    """A fixed split in two: ``fraction`` (rounded) of each class goes to the second part, but never all of it.

    Returns:
        Positions of the first and of the second part, each in increasing order.
    """
    counts = labels.bincount()
    share = torch.minimum((counts * fraction).round().long(), (counts - 1).clamp_min(0))
    second = _ranks(labels) < share[labels]
    return (~second).nonzero().flatten(), second.nonzero().flatten()


def _fixed_shuffle(n: int) -> Tensor:
    return shuffled(fold(torch.arange(n), _FIXED))


def _ranks(labels: Tensor) -> Tensor:
    """Rank of each example within its class, in the fixed shuffle."""
    order = _fixed_shuffle(len(labels))
    by_class = order[labels[order].argsort(stable=True)]
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(order)
    ranks[by_class] = torch.arange(len(labels)) - starts[labels[by_class]]
    return ranks
