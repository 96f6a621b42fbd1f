"""The average prediction of a random model: tests of it during an attack, and its final reading.

The average prediction is the argmax of the mean class probabilities over many draws that no attack has seen.
:meth:`Averages.confirm` tests whether it is wrong at a proposed image. :meth:`Averages.read` computes it at the image
with the smallest margin found, and gives three numbers: whether the average prediction is wrong, whether it is so with
confidence (a test at level :data:`DOUBT`), and whether the first draw alone is wrong. The last is what papers report:
one evaluation of the model, with the samples of the code that it averages itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.attacks.engine import rounding
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.core.preserve_state import seed_generators
from isthmus.core.randomness import fold

DOUBT = 0.01
"""Largest chance that an image counts as wrong with confidence although the average prediction is right."""

SETTLED = 0.001
"""Doubt at which a reading ends early, in either direction."""

BLOCK = 16
"""Draws that a test takes at first; each later block doubles their number."""

FIRST = 4
"""Draws of a reading that choose the strongest rival class, before the test begins."""

MOST = 512
"""Draws after which a reading's undecided test ends; the mean of all draws then decides."""

SCREEN = 4
"""Draws that screen a proposal; the test continues only if their average is wrong."""

MOST_DRAWS = 1024
"""Draws after which an undecided test ends and the attack continues."""

UNSURE = 0.001
"""Lead of one class over the next up to which a draw is unsure. If the first 20 draws of an image are, as those of a
model with tiny logits, each draw counts as a vote for the class it predicts; probabilities would take too long."""

BETS = (0.02, 0.1, 0.3, 0.6, 0.9)
"""Fractions of its capital that a test bets on every draw; the test's capital is their mean."""

ALIKE = 8
"""Single passes that must repeat the logits of a pass which gave the same to all copies of an image, before the model
counts as deterministic there."""

TOGETHER = 64
"""Largest number of copies of an image in one pass of a model that draws from the global generators."""

_PATIENCE = 32  # draws that a test takes even if it loses


@dataclass(frozen=True)
class Reading:
    """The average prediction at each image.

    Attributes:
        mean: class probabilities averaged over all draws; fractions of votes if the first draws are :data:`UNSURE`.
        wrong: whether the average prediction is a success for the attacker: not the label, or the target.
        once: whether the first draw alone is.
        sure: whether the average is, with confidence.
        lead: mean probability by which it is a success; negative if it is none.
        draws: how many draws the mean is over.
    """

    mean: Float[Tensor, "n classes"]
    wrong: Bool[Tensor, " n"]
    once: Bool[Tensor, " n"]
    sure: Bool[Tensor, " n"]
    lead: Float[Tensor, " n"]
    draws: Int[Tensor, " n"]


class Averages:
    """Averages of a random model over draws that derive from the examples' keys.

    Args:
        counted_model: the model.
    """

    def __init__(self, counted_model: CountedModel) -> None:
        self.counted_model = counted_model
        self.one_draw_a_pass = False  # whether all rows of a pass share their noise; set once that is detected

    def read(self, images: Float[Tensor, "n c h w"], batch: Batch) -> Reading:
        """Compute the average prediction at each image.

        Draws are taken until one of two opposite tests (:func:`capital`) leaves a doubt of :data:`SETTLED`, or up to
        :data:`MOST`. Most images are settled by some 20 draws. If probabilities are NaN, their mean is NaN, which is no
        success.

        Args:
            images: one for each example of the batch.
        """
        keys = fold(batch.keys, "averages/reading")
        drawn = self.probabilities(images, keys, 0, FIRST + BLOCK)
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
                drawn = voted(self.probabilities(images[rows], keys[rows], FIRST + start, count), unsure[rows])
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

    def confirm(
        self, images: Float[Tensor, "n c h w"], batch: Batch, tries: Int[Tensor, " n"]
    ) -> tuple[Bool[Tensor, " n"], Float[Tensor, " n"]]:
        """Test one-sided, on fresh draws, whether the average prediction is wrong; also return the mean margins.

        Screening on :data:`SCREEN` draws rejects most proposals and chooses the rival class. For the k-th proposal of
        an example that passes, each new draw gives a lead in [−1, 1]: the rival's probability less the label's (in a
        targeted evaluation, the target's less the largest other). If the mean lead is not positive, a gambler's capital
        (:func:`capital`) reaches k(k+1)/DOUBT with a chance of at most DOUBT/k(k+1). These levels sum to DOUBT over all
        k. The test ends there, or when success has become unlikely, or after :data:`MOST_DRAWS` draws; then the attack
        continues. If the first draws are :data:`UNSURE`, draws count as votes.

        Args:
            tries: how many proposals of each example were tested before; counted up here, in place.
        """
        first = self.probabilities(images, fold(batch.keys, "verifier/screen", tries, _content(images)), 0, SCREEN)
        total, draws = first.sum(1), torch.full_like(batch.labels, SCREEN)
        mean = first.mean(1).clamp(min=1e-30).log()
        margin = torch.where(first.isfinite().flatten(1).all(1), batch.margin(mean), torch.nan)
        rows = (batch.reached(mean) & margin.isfinite()).nonzero().squeeze(1)
        broken = torch.zeros(len(batch), dtype=torch.bool, device=images.device)
        unsure = broken.clone()
        if len(rows) == 0:
            return broken, margin
        tries[rows] += 1
        rival = mean.scatter(1, batch.labels[:, None], -torch.inf).argmax(1)
        wealth = torch.ones(len(batch), len(BETS), dtype=torch.float64, device=images.device)
        needed = tries * (tries + 1) / DOUBT
        for start, count in blocks(MOST_DRAWS):
            some = batch.take(rows)
            drawn = self.probabilities(images[rows], fold(some.keys, "verifier/confirm", tries[rows]), start, count)
            if start == 0:
                unsure[rows] = are_unsure(torch.cat([first[rows], drawn], 1))
                total[rows] = voted(first[rows], unsure[rows]).sum(1)
            drawn = voted(drawn, unsure[rows])
            total[rows] += drawn.sum(1)
            draws[rows] += count
            wealth[rows], highest = capital(wealth[rows], lead(some, drawn, rival[rows]))
            broken[rows] = highest >= needed[rows]
            undecided = ~broken[rows] & drawn.isfinite().flatten(1).all(1)
            if start + count >= _PATIENCE:  # a test that has lost by then seldom wins
                undecided &= wealth[rows].mean(1) > 1
            rows = rows[undecided]
            if len(rows) == 0:
                break
        margin = torch.where(margin.isfinite(), batch.margin((total / draws[:, None]).clamp(min=1e-30).log()), margin)
        return broken, torch.where(broken, -margin.abs(), margin)

    def probabilities(
        self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"], first: int, count: int
    ) -> Float[Tensor, "n count classes"]:
        """Class probabilities in ``count`` draws from number ``first`` on.

        They repeat from the keys and the numbers, image by image.
        """
        keys = fresh(keys)
        if self.counted_model.takes_keys:
            return self.counted_model.draws(images, keys, first, count).softmax(2)
        # A model that draws from the global generators: seeded for each image by itself, it repeats in any batch.
        found = []
        for image, key in zip(images, fold(keys, "verifier/seed", first), strict=True):
            with torch.random.fork_rng(devices=[image.device] if image.is_cuda else []):
                seed_generators(int(key) & (2**63 - 1), [image.device] if image.is_cuda else [])
                parts = image.expand(count, *image.shape).contiguous().split(TOGETHER)
                found.append(torch.cat([self._drawn(part, key.expand(len(part))) for part in parts]))
        return torch.stack(found).softmax(2)

    def _drawn(self, copies: Float[Tensor, "draws c h w"], keys: Int[Tensor, " draws"]) -> Float[Tensor, "draws k"]:
        """Independent logits of copies of an image: from one pass, unless all rows of a pass share their noise."""
        if not self.one_draw_a_pass:
            logits = self.counted_model.logits(copies, keys)
            if len(copies) > 1 and rounding.differ(logits, logits[:1].expand_as(logits)):
                return logits
            again = (self.counted_model.logits(copies[:1], keys[:1]).expand_as(logits) for _ in range(ALIKE))
            self.one_draw_a_pass = any(rounding.differ(logits, each) for each in again)
            if not self.one_draw_a_pass:  # it is not random here
                return logits
        return torch.cat([self.counted_model.logits(copies[:1], keys[:1]) for _ in copies])


def fresh(keys: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Keys of noise that no attack sees; the same for every pass on an example, so that its logits repeat."""
    return fold(keys, "verifier/pass")


def _content(images: Float[Tensor, "n c h w"]) -> Int[Tensor, " n"]:
    """A number that differs between images, almost surely, so that each is screened on draws of its own."""
    return images.float().contiguous().flatten(1).view(torch.int32).long().sum(1)


def are_unsure(drawn: Float[Tensor, "n draws classes"]) -> Bool[Tensor, " n"]:
    """Images of which no draw favours one class over the next by more than :data:`UNSURE`."""
    two = drawn.topk(2, dim=2).values
    return (two[:, :, 0] - two[:, :, 1] <= UNSURE).all(1)


def voted(drawn: Float[Tensor, "n draws classes"], unsure: Bool[Tensor, " n"]) -> Float[Tensor, "n draws classes"]:
    """The probabilities; for unsure images 1 for the class that a draw predicts, and 0 for all others."""
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
    """The probability by which each draw is a success, in [−1, 1]."""
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
    """The capital of a gambler who bets fractions of it on every lead, after all; and the highest mean until then.

    If the mean lead is not positive, the mean capital is a supermartingale. Then it ever reaches C with a chance of at
    most 1/C (Ville's inequality), for any distribution of the leads and any number of draws. So a test may end at any
    draw, even within a block.
    """
    bets = wealth.new_tensor(BETS)
    after = wealth[:, None] * (1 + bets * leads.double()[:, :, None]).cumprod(1)
    return after[:, -1], after.mean(2).amax(1)
