"""Merge the results of several attacks on the same examples into one."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from isthmus.attacks.result import RobustResult

_OF_LAST_ATTACK = ("done", "scores", "marks")  # columns that only describe the attack that ran last


def merge(best: RobustResult, rows: Int[Tensor, " some"], found: RobustResult) -> RobustResult:
    """Merge new adversarial examples into ``best``.

    Args:
        rows: positions in ``best`` of the examples of ``found``.
        found: an attack on these examples; adversarial examples of those that ``best`` has broken are dropped.
    """
    new = (found.broken & (found.stage > 0) & best.robust[rows]).nonzero().squeeze(1)
    labels = [*best.attacks, *(label for label in found.attacks if label not in best.attacks)]
    state, entries = best.state.take(torch.arange(len(best))), found.state.take(new)
    entries.stage = torch.tensor([labels.index(found.attacks[at]) for at in entries.stage.tolist()]).long()
    for name, column in state.columns().items():
        if name not in _OF_LAST_ATTACK:
            column[rows[new]] = getattr(entries, name)
    state.tries[rows] = torch.maximum(state.tries[rows], found.state.tries)
    nearer = (found.state.margin < state.margin[rows]).nonzero().squeeze(1)
    state.margin[rows[nearer]] = found.state.margin[nearer]
    return replace(best, attacks=tuple(labels), state=state, spent=(0,) * len(labels))


def reopen(result: RobustResult) -> RobustResult:
    """Count the examples that attacks broke as robust again."""
    state = result.state.take(torch.arange(len(result)))
    state.reopen((result.broken & (result.stage > 0)).nonzero().squeeze(1))
    return replace(result, state=state)


def without_images(result: RobustResult) -> RobustResult:
    """The result without its adversarial images, which take as much memory as the data."""
    nothing = torch.full((1, 1, 1, 1), torch.nan).expand_as(result.state.adversarial)
    return replace(result, state=replace(result.state, adversarial=nothing))
