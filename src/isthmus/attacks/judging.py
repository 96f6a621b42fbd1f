"""The judge: whether a proposed image really breaks its example, in float32, on a fresh forward pass.

Attacks propose and are never believed. A proposal is brought into ball and box where it is outside, shown to the
model itself, and breaks its example only if the prediction is wrong by more than float32's rounding could turn.

A random model is judged by its average over fresh draws that no attack has seen, and only with confidence: a test at
level :data:`DOUBT` per example, however often the example is proposed (see :meth:`Judge.confirm`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.attacks.oracle import Batch, Oracle
from isthmus.attacks.rows import per_image
from isthmus.attacks.threats import Threat
from isthmus.randomness import fold

DOUBT = 0.01
"""Chance, at most, that a random model's example is called broken though its average prediction is right."""

DRAWS = 16
"""Draws that a random model's prediction is averaged over."""

SCREEN = 4
"""Draws of the first look at a proposal; it goes on only where these, on average, are wrong."""

ROUNDING = 2.0**-18
"""By how much a wrong logit must win, as a share of the largest logit; another batch size may turn anything less."""

_JUDGE, _SCREEN = -2, -3  # folded into an example's key for noise that no attack ever sees


@dataclass(frozen=True)
class Verdict:
    """What the judge found, one row per proposal.

    Attributes:
        images: the proposals as judged, inside ball and box.
        broken: whether they break their examples.
        finite: whether image and logits are all finite; an example whose are not is to be set aside.
        gap: logits (ln of mean probabilities for a random model) from success; negative where broken.
    """

    images: Float[Tensor, "n c h w"]
    broken: Bool[Tensor, " n"]
    finite: Bool[Tensor, " n"]
    gap: Float[Tensor, " n"]


class Judge:
    """Judges proposals for one model and threat.

    Args:
        oracle: the model.
        threat: ball that witnesses must lie in.
    """

    def __init__(self, oracle: Oracle, threat: Threat) -> None:
        self.oracle, self.threat = oracle, threat

    def clean(self, batch: Batch) -> Float[Tensor, "n classes"]:
        """Logits of the images themselves; of a random model, the ln of its mean probabilities."""
        if self.oracle.random:
            return self.average(batch.images, fold(batch.keys, _JUDGE), DRAWS).mean(1).log()
        return self.oracle.logits(batch.images, fold(batch.keys, _JUDGE))

    def proposals(self, images: Float[Tensor, "n c h w"], batch: Batch, tries: Int[Tensor, " n"]) -> Verdict:
        """Judge one proposal for each example.

        Args:
            tries: how often each example has been confirmed or not before (see :meth:`confirm`); counted up here,
                in place, where a random model's proposal gets that far.
        """
        sane = images.isfinite().flatten(1).all(1)
        images = torch.where(per_image(sane, images), images, batch.images)
        inside = self.threat.contains(images, batch.images)
        if not inside.all():
            projected = self.threat.project(images, batch.images)
            images = torch.where(per_image(inside, images), images, projected)
            sane &= self.threat.contains(images, batch.images)
        if self.oracle.random:
            broken, gap = self.confirm(images, batch, tries)
            return Verdict(images, sane & broken, sane & gap.isfinite(), gap)
        logits = self.oracle.logits(images, fold(batch.keys, _JUDGE))
        finite = sane & logits.isfinite().all(1)
        return Verdict(images, finite & beyond_rounding(batch, logits), finite, batch.gap(logits))

    def confirm(
        self, images: Float[Tensor, "n c h w"], batch: Batch, tries: Int[Tensor, " n"]
    ) -> tuple[Bool[Tensor, " n"], Float[Tensor, " n"]]:
        """Whether a random model's average prediction is wrong, tested one-sided on fresh draws; and the gaps.

        Screening on :data:`SCREEN` draws ends most proposals and names the rival class. The k-th proposal of an
        example that passes gets :data:`DRAWS` new draws and Student's test of "the rival's mean probability is no
        larger than the label's" at level DOUBT / k(k+1). These levels sum to DOUBT, so an example is called broken
        by luck with at most that chance, however often it is proposed.
        """
        first = self.average(images, fold(batch.keys, _JUDGE, _SCREEN, tries), SCREEN)
        mean = first.mean(1).clamp(min=1e-30).log()
        gap = torch.where(first.isfinite().flatten(1).all(1), batch.gap(mean), torch.nan)
        rows = (batch.reached(mean) & gap.isfinite()).nonzero().squeeze(1)
        broken = torch.zeros(len(batch), dtype=torch.bool, device=images.device)
        if len(rows) == 0:
            return broken, gap
        tries[rows] += 1
        some = batch.take(rows)
        winner, loser = _rivals(some, mean[rows])
        drawn = self.average(images[rows], fold(some.keys, _JUDGE, tries[rows]), DRAWS)
        lead = _pick(drawn, winner) - _pick(drawn, loser)
        broken[rows] = _surely_positive(lead, tries[rows]) & some.reached(drawn.mean(1))
        gap[rows] = some.gap(drawn.mean(1).clamp(min=1e-30).log())
        return broken, gap

    def average(
        self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"], draws: int
    ) -> Float[Tensor, "n draws classes"]:
        """A random model's class probabilities in so many draws, repeatable from the keys, image by image."""
        if self.oracle.takes_keys:
            drawn = [self.oracle.logits(images, fold(keys, _JUDGE), draw) for draw in range(draws)]
            return torch.stack(drawn, 1).softmax(2)
        # A model that draws from the global generators: seeded for each image by itself, it repeats in any batch.
        found = []
        for image, key in zip(images, keys, strict=True):
            with torch.random.fork_rng(devices=[image.device] if image.is_cuda else []):
                torch.manual_seed(int(key) & (2**63 - 1))
                found.append(self.oracle.logits(image.expand(draws, *image.shape).contiguous(), key.expand(draws)))
        return torch.stack(found).softmax(2)


def beyond_rounding(batch: Batch, logits: Tensor) -> Bool[Tensor, " n"]:
    """Whether success is more than a tie or a rounding: it would be found again in a batch of another size."""
    return batch.reached(logits) & (batch.gap(logits) < -ROUNDING * logits.abs().amax(1))


def _rivals(batch: Batch, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Who must win and who must lose for a success: a wrong class over the label, or the target over the next."""
    if batch.targets is None:
        own = scores.scatter(1, batch.labels[:, None], -torch.inf)
        return own.argmax(1), batch.labels
    others = scores.scatter(1, batch.targets[:, None], -torch.inf)
    return batch.targets, others.argmax(1)


def _pick(drawn: Tensor, classes: Tensor) -> Tensor:
    return drawn.gather(2, classes[:, None, None].expand(-1, drawn.shape[1], 1)).squeeze(2)


def _surely_positive(lead: Float[Tensor, "n draws"], tries: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    from scipy.stats import t

    level = DOUBT / (tries * (tries + 1)).double()
    needed = torch.as_tensor(t.isf(level.cpu().numpy(), DRAWS - 1), device=lead.device)
    mean, error = lead.double().mean(1), lead.double().std(1) / DRAWS**0.5
    sure: Tensor = (mean > 0) & (mean > needed * error)
    return sure
