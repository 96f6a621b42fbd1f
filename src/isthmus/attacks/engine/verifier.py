"""The verifier: whether a proposed image really breaks its example, in float32, on a fresh forward pass.

Attacks propose and are never believed. A proposal is brought into ball and box where it is outside, shown to the
model itself, and breaks its example only if the prediction, by argmax, is wrong by more than float32's rounding could
turn, or is found wrong again in batches of other sizes, as a tie is.

At each proposed success the model is asked again. Where it answers the same batch differently, it answers at random,
however it answered elsewhere, and :class:`Randomness` ends the evaluation under the rule for deterministic models.

An attack on a random model goes on until its average over fresh draws is wrong with confidence: a test at level 1% per
example, however often the example is proposed, that assumes nothing of the draws but that they are independent (see
:meth:`Verifier.confirm`). What counts in the end is a reading of the average at the adversarial example that came
closest, on draws that neither attack nor test has seen (:mod:`isthmus.attacks.engine.averages`).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.attacks.engine import averages, rounding
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.rows import per_image
from isthmus.attacks.threats import Threat
from isthmus.core.errors import ModelError
from isthmus.core.preserve_state import seed_generators
from isthmus.core.randomness import fold

MOST_DRAWS = 1024
"""Draws after which a test that is still undecided lets the attack go on."""

SCREEN = 4
"""Draws of the first look at a proposal; the test goes on only where these, on average, are wrong."""

COPIES = (1, 3, 8)
"""Sizes of the batches in which a win that might be rounding must be found again."""

ALIKE = 8
"""Single passes that must repeat an answer which a pass gave to all copies of an image, before it counts as certain."""

REPEATS = 3
"""Repetitions of a batch that tell a random model from one whose answers depend on the rest of the batch."""

TOGETHER = 64
"""Copies of an image in one pass, at most, of a model that draws from the global generators."""

_PATIENCE = 32  # draws that a test plays on even if it loses


class Randomness(Exception):
    """The model answered the same batch differently: start over, with the rule for random models."""


@dataclass(frozen=True)
class VerifierResult:
    """What the verifier found, one row per proposal.

    Attributes:
        images: the proposals as judged, inside ball and box.
        broken: whether they break their examples.
        finite: whether image and logits are all finite; an example whose are not is to be set aside.
        gap: logits (ln of mean probabilities for a random model) from success; negative where broken.
    """

    images: Float[Tensor, "n c h w"]
    broken: Bool[Tensor, " n"]
    finite: Bool[Tensor, " n"]
    margin: Float[Tensor, " n"]


class Verifier:
    """Judges proposals for one model and threat.

    Args:
        counted_model: the model.
        threat: ball that adversarial images must lie in.
    """

    def __init__(self, counted_model: CountedModel, threat: Threat) -> None:
        self.counted_model, self.threat = counted_model, threat
        self.repeated: Tensor | None = None  # how often each row of the last batch was asked about once more
        self.one_draw_a_pass = False  # whether all rows of a pass share their noise; known once it was seen

    @property
    def in_turn(self) -> bool:
        """Whether a verdict depends on what was proposed for the example before, as a random model's level does."""
        return self.counted_model.random

    def take_repeated(self) -> Int[Tensor, " n"] | None:
        """How often each row of the last batch was asked about once more; None where none was, or it was taken."""
        taken, self.repeated = self.repeated, None
        return taken

    def start_over(self) -> None:
        """From here on, the model is random; what was judged before is not believed."""
        self.counted_model.random = True

    def clean(self, batch: Batch) -> Float[Tensor, "n classes"]:
        """Logits of the images themselves; of a random model, the ln of its mean probabilities (:meth:`read`)."""
        if self.counted_model.random:
            return self.read(batch.images, batch).mean.clamp(min=1e-30).log()
        return self.counted_model.logits(batch.images, _fresh(batch.keys))

    def read(self, images: Float[Tensor, "n c h w"], batch: Batch) -> averages.Reading:
        """What a random model says on average about images, on draws of their own."""
        return averages.read(self.average, images, batch)

    def proposals(self, images: Float[Tensor, "n c h w"], batch: Batch, tries: Int[Tensor, " n"]) -> VerifierResult:
        """Judge one proposal for each example.

        Args:
            tries: how often each example has been confirmed or not before (see :meth:`confirm`); counted up here,
                in place, where a random model's proposal gets that far.

        Raises:
            Randomness: the model passes for deterministic, but answers a proposed success differently when asked again.
        """
        sane = images.isfinite().flatten(1).all(1)
        images = torch.where(per_image(sane, images), images, batch.images)
        inside = self.threat.contains(images, batch.images)
        if not inside.all():
            projected = self.threat.project(images, batch.images)
            images = torch.where(per_image(inside, images), images, projected)
            sane &= self.threat.contains(images, batch.images)
        if self.counted_model.random:
            broken, margin = self.confirm(images, batch, tries)
            return VerifierResult(images, sane & broken, sane & margin.isfinite(), margin)
        logits = self.counted_model.logits(images, _fresh(batch.keys))
        finite = sane & logits.isfinite().all(1)
        self.ask_again(images, batch.keys, logits, finite & batch.reached(logits))
        broken, margin = finite & beyond_rounding(batch, logits), batch.margin(logits)
        maybe = finite & ~broken & batch.reached(logits) & ~rounding.alike(logits)
        for row in maybe.nonzero().squeeze(1).tolist():
            broken[row] = self._again(images[row : row + 1], batch.take(torch.tensor([row])))
        return VerifierResult(images, broken, finite, margin)

    def ask_again(
        self,
        images: Float[Tensor, "n c h w"],
        keys: Int[Tensor, " n"],
        logits: Float[Tensor, "n classes"],
        about: Bool[Tensor, " n"],
    ) -> None:
        """Ask the model once more about some of these images, whose logits it gave before.

        Answers that depend on the rest of the batch are not random: the same batch repeats them.

        Raises:
            Randomness: the answers differ by more than rounding, and so do those to the whole batch.
        """
        rows = about.nonzero().squeeze(1)
        if self.counted_model.random or len(rows) == 0:
            return
        keys = _fresh(keys)
        with suppress(ModelError):  # it may take batches of one size alone
            again = self.counted_model.logits(images[rows], keys[rows])
            self.repeated = about.long().cpu()
            if not rounding.differ(logits[rows], again):
                return
        if any(rounding.differ(logits, self.counted_model.logits(images, keys)) for _ in range(REPEATS)):
            raise Randomness

    def holds(self, images: Float[Tensor, "n c h w"], batch: Batch) -> Bool[Tensor, " n"]:
        """Whether a deterministic model's adversarial examples are inside ball and box and succeed on a further pass.

        Raises:
            Randomness: it answers the same batch in more than one way.
        """
        inside = self.threat.contains(images, batch.images)
        logits = self.counted_model.logits(images, batch.keys)
        right = ~(logits.isfinite().all(1) & batch.reached(logits))
        self.ask_again(images, batch.keys, logits, right)
        return inside & ~right

    def _again(self, image: Float[Tensor, "1 c h w"], example: Batch) -> bool:
        """Whether argmax errs again in batches of other sizes, each filled with the image, where it might be rounding.

        Where logits are coarse, since they are rounded, votes, or carry a large constant, wins are small and real, or
        they are ties. As on a clean image, argmax decides.
        """
        for copies in COPIES:
            rows = torch.zeros(copies, dtype=torch.int64)
            batch = example.take(rows)
            try:
                logits = self.counted_model.logits(
                    image.expand(copies, *image.shape[1:]).contiguous(), _fresh(batch.keys)
                )
            except ModelError:  # it may need other company
                return False
            if not bool(batch.reached(logits).all()):
                return False
        return True

    def confirm(
        self, images: Float[Tensor, "n c h w"], batch: Batch, tries: Int[Tensor, " n"]
    ) -> tuple[Bool[Tensor, " n"], Float[Tensor, " n"]]:
        """Whether a random model's average prediction is wrong, tested one-sided on fresh draws; and the mean gaps.

        Screening on :data:`SCREEN` draws ends most proposals and names the rival class. For the k-th proposal of an
        example that passes, each new draw gives a lead in [−1, 1]: the rival's probability less the label's (in a
        targeted evaluation, the target's less the largest other). Were the mean lead not positive, a gambler's capital
        (:func:`isthmus.attacks.engine.averages.capital`) would reach k(k+1)/DOUBT with a chance of at most
        DOUBT/k(k+1). These levels sum to DOUBT over all k. The game ends there, or when little is left to hope for, at
        the latest after :data:`MOST_DRAWS` draws; then the attack continues. Where the first draws are unsure, they
        count as votes (:data:`isthmus.attacks.engine.averages.UNSURE`).
        """
        first = self.average(images, fold(batch.keys, "verifier/screen", tries, _content(images)), 0, SCREEN)
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
        wealth = torch.ones(len(batch), len(averages.BETS), dtype=torch.float64, device=images.device)
        needed = tries * (tries + 1) / averages.DOUBT
        for start, count in averages.blocks(MOST_DRAWS):
            some = batch.take(rows)
            drawn = self.average(images[rows], fold(some.keys, "verifier/confirm", tries[rows]), start, count)
            if start == 0:
                unsure[rows] = averages.are_unsure(torch.cat([first[rows], drawn], 1))
                total[rows] = averages.voted(first[rows], unsure[rows]).sum(1)
            drawn = averages.voted(drawn, unsure[rows])
            total[rows] += drawn.sum(1)
            draws[rows] += count
            wealth[rows], highest = averages.capital(wealth[rows], averages.lead(some, drawn, rival[rows]))
            broken[rows] = highest >= needed[rows]
            goes_on = ~broken[rows] & drawn.isfinite().flatten(1).all(1)
            if start + count >= _PATIENCE:  # a test that has lost by then seldom wins
                goes_on &= wealth[rows].mean(1) > 1
            rows = rows[goes_on]
            if len(rows) == 0:
                break
        margin = torch.where(margin.isfinite(), batch.margin((total / draws[:, None]).clamp(min=1e-30).log()), margin)
        return broken, torch.where(broken, -margin.abs(), margin)

    def average(
        self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"], first: int, count: int
    ) -> Float[Tensor, "n count classes"]:
        """A random model's class probabilities in so many draws from number ``first`` on.

        They repeat from the keys and the numbers, image by image.
        """
        keys = _fresh(keys)
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
        """Independent answers to copies of an image: from one pass, unless all rows of a pass share their noise."""
        if not self.one_draw_a_pass:
            answers = self.counted_model.logits(copies, keys)
            if len(copies) > 1 and rounding.differ(answers, answers[:1].expand_as(answers)):
                return answers
            again = (self.counted_model.logits(copies[:1], keys[:1]).expand_as(answers) for _ in range(ALIKE))
            self.one_draw_a_pass = any(rounding.differ(answers, each) for each in again)
            if not self.one_draw_a_pass:  # it is not random here
                return answers
        return torch.cat([self.counted_model.logits(copies[:1], keys[:1]) for _ in copies])


def beyond_rounding(batch: Batch, logits: Tensor) -> Bool[Tensor, " n"]:
    """Whether success is more than a tie or a rounding: it need not be looked for again in batches of other sizes.

    No rounding makes all logits equal: a constant answer counts as the class that argmax makes of it.
    """
    low, high = logits.aminmax(dim=1)
    return batch.reached(logits) & ((batch.margin(logits) < -rounding.slack(logits)) | (high == low))


def _fresh(keys: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Keys of noise that no attack sees; the same for every pass on an example, so that its answers repeat."""
    return fold(keys, "verifier/pass")


def _content(images: Float[Tensor, "n c h w"]) -> Int[Tensor, " n"]:
    """A number for each image that another image hardly has, so that each is screened on draws of its own."""
    return images.float().contiguous().flatten(1).view(torch.int32).long().sum(1)
