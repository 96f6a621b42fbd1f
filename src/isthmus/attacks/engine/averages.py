"""What a random model answers to an image on average, read on draws that no attack has seen; and how sure that is.

Three numbers come of one reading. The average prediction is the argmax of the mean class probabilities over many draws:
whether it errs is the quantity that is wanted. A test at level :data:`DOUBT` says where it surely errs. And the first
draw alone is what papers report: one evaluation of the model, with the samples of the code that it averages itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.attacks.engine.batch import Batch
from isthmus.core.randomness import fold

Average = Callable[[Tensor, Tensor, int, int], Tensor]
"""From images, keys, the number of the first draw and how many, to class probabilities, n × draws × classes."""

DOUBT = 0.01
"""Chance, at most, that an image is said to err with confidence though the average prediction is right."""

SETTLED = 0.001
"""Doubt at which a reading ends early, either way."""

BLOCK = 16
"""Draws that a test takes at first; from then on, as many as it has taken already."""

FIRST = 4
"""Draws that name the strongest rival class, before the test begins."""

MOST = 512
"""Draws after which a reading's undecided test ends; the mean of all draws then decides."""

UNSURE = 0.001
"""Lead of one class over the next up to which a draw is unsure. Where the first 20 draws of an image are, as those of a
model with tiny logits, each draw counts as a vote for the class it predicts; probabilities would not tell in time."""

BETS = (0.02, 0.1, 0.3, 0.6, 0.9)
"""Shares of its capital that a test bets on every draw; the test's capital is their mean."""


@dataclass(frozen=True)
class Reading:
    """What was read of each image.

    Attributes:
        mean: class probabilities averaged over all draws; shares of votes where the first draws are :data:`UNSURE`.
        wrong: whether the average prediction is a success for the attacker: not the label, or the target.
        once: whether the first draw alone is.
        sure: whether the average is, with confidence.
        lead: mean probability by which it is a success; negative where it is none.
        draws: how many the mean is over.
    """

    mean: Float[Tensor, "n classes"]
    wrong: Bool[Tensor, " n"]
    once: Bool[Tensor, " n"]
    sure: Bool[Tensor, " n"]
    lead: Float[Tensor, " n"]
    draws: Int[Tensor, " n"]


def read(average: Average, images: Float[Tensor, "n c h w"], batch: Batch) -> Reading:
    """Read the average prediction of a random model at each image, on draws that derive from the example's key.

    Draws are taken until one of two opposite tests (:func:`capital`) leaves a doubt of :data:`SETTLED`, or up to
    :data:`MOST`. Most images are settled by some 20 draws. NaN in an answer makes its mean NaN, and no success.

    Args:
        average: asks the model.
        images: where, one for each example of the batch.
    """
    keys = fold(batch.keys, "averages/reading")
    drawn = average(images, keys, 0, FIRST + BLOCK)
    once, unsure = batch.reached(drawn[:, 0]), are_unsure(drawn)
    drawn = voted(drawn, unsure)
    first, drawn = drawn[:, :FIRST], drawn[:, FIRST:]
    total, draws = first.double().sum(1), torch.full_like(batch.labels, FIRST)
    own = batch.labels if batch.targets is None else batch.targets
    rival = total.scatter(1, own[:, None], -torch.inf).argmax(1)
    wealth = torch.ones(len(batch), 2, len(BETS), dtype=torch.float64, device=images.device)
    most = wealth.mean(2)
    rows = torch.arange(len(batch), device=images.device)
    for start, count in blocks(MOST):
        if start > 0:
            drawn = voted(average(images[rows], keys[rows], FIRST + start, count), unsure[rows])
        total[rows] += drawn.double().sum(1)
        draws[rows] += count
        against = pick(drawn, rival[rows]) - pick(drawn, own[rows])
        for side, leads in enumerate((against, over_all(drawn, own[rows]))):
            wealth[rows, side], highest = capital(wealth[rows, side], leads)
            most[rows, side] = torch.maximum(most[rows, side], highest)
        rows = rows[(most[rows] < 1 / SETTLED).all(1) & total[rows].isfinite().all(1)]
        if len(rows) == 0:
            break
    mean = total / draws[:, None]
    finite, side = mean.isfinite().all(1), 0 if batch.targets is None else 1
    wrong = finite & batch.reached(mean)
    lead = -batch.margin(mean)
    sure = wrong & (most[:, side] >= 1 / DOUBT)
    return Reading(mean.float(), wrong, once, sure, lead.float(), draws)


def are_unsure(drawn: Float[Tensor, "n draws classes"]) -> Bool[Tensor, " n"]:
    """Images of which no draw is surer of a class than of the next by more than :data:`UNSURE`."""
    two = drawn.topk(2, dim=2).values
    return (two[:, :, 0] - two[:, :, 1] <= UNSURE).all(1)


def voted(drawn: Float[Tensor, "n draws classes"], unsure: Bool[Tensor, " n"]) -> Float[Tensor, "n draws classes"]:
    """The probabilities; of unsure images 1 for the class that a draw predicts, and 0 for others."""
    if not unsure.any():
        return drawn
    votes = torch.zeros_like(drawn).scatter(2, drawn.argmax(2, keepdim=True), 1.0)
    return torch.where(unsure[:, None, None] & drawn.isfinite(), votes, drawn)


def blocks(most: int) -> Iterator[tuple[int, int]]:
    """Blocks of draws of a test with at most ``most`` draws: the number of each block's first draw, and its size."""
    start = 0
    while start < most:
        count = min(max(start, BLOCK), most - start)
        yield start, count
        start += count


def lead(batch: Batch, drawn: Float[Tensor, "n draws classes"], rival: Tensor) -> Float[Tensor, "n draws"]:
    """By how much a draw speaks for success, in [−1, 1]."""
    if batch.targets is None:
        return pick(drawn, rival) - pick(drawn, batch.labels)
    return over_all(drawn, batch.targets)


def over_all(drawn: Float[Tensor, "n draws classes"], classes: Int[Tensor, " n"]) -> Float[Tensor, "n draws"]:
    """The probability of a class less the largest other one, in each draw."""
    others = drawn.scatter(2, classes[:, None, None].expand(-1, drawn.shape[1], 1), -torch.inf)
    return pick(drawn, classes) - others.amax(2)


def pick(drawn: Float[Tensor, "n draws classes"], classes: Int[Tensor, " n"]) -> Float[Tensor, "n draws"]:
    """The probability of a class in each draw."""
    return drawn.gather(2, classes[:, None, None].expand(-1, drawn.shape[1], 1)).squeeze(2)


def capital(
    wealth: Float[Tensor, "n bets"], leads: Float[Tensor, "n draws"]
) -> tuple[Float[Tensor, "n bets"], Float[Tensor, " n"]]:
    """The capital of a gambler who bets shares of it on every lead, after all of them; and the highest mean on the way.

    Were the mean lead not positive, the mean capital would be a supermartingale, and would ever reach C with a chance
    of at most 1/C (Ville's inequality), whatever the distribution of the leads and however long one plays. So a test
    may end at any draw, in the middle of a block, too.
    """
    bets = wealth.new_tensor(BETS)
    after = wealth[:, None] * (1 + bets * leads.double()[:, :, None]).cumprod(1)
    return after[:, -1], after.mean(2).amax(1)
