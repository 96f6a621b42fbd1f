"""The verifier: whether a proposed image breaks its example, in float32, on a fresh forward pass.

A proposal outside ball and box is projected. It breaks its example only if the model itself predicts a wrong class by
more than float32's rounding, or if the error repeats in batches of other sizes, as a tie does.

Every proposed success is queried again. If the logits of the same batch differ, the model is random, and
:class:`Randomness` ends the evaluation under the rule for deterministic models.

A random model is attacked until its average over fresh draws is wrong with confidence: a test at level 1% per example,
however often the example is proposed, that assumes only independent draws. The result follows a final reading of the
average, on draws that neither attack nor test has seen (:mod:`isthmus.attacks.engine.averages`).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.attacks.engine import rounding
from isthmus.attacks.engine.averages import Averages, fresh
from isthmus.attacks.engine.batch import Batch, per_image
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.threats import Threat
from isthmus.core.errors import ModelError

COPIES = (1, 3, 8)
"""Sizes of the batches in which a success that may be rounding must repeat."""

REPEATS = 3
"""Repetitions of a batch that distinguish a random model from one whose logits depend on the rest of the batch."""


class Randomness(Exception):
    """The logits of the same batch differ: start over, with the rule for random models."""


@dataclass(frozen=True)
class VerifierResult:
    """The verification of proposals, one row each.

    Attributes:
        images: the proposals as verified, inside ball and box.
        broken: whether they break their examples.
        finite: whether image and logits are all finite; if not, the example is invalid.
        margin: in logits (ln of mean probabilities for a random model); negative if broken.
    """

    images: Float[Tensor, "n c h w"]
    broken: Bool[Tensor, " n"]
    finite: Bool[Tensor, " n"]
    margin: Float[Tensor, " n"]


class Verifier:
    """Verifies proposals for one model and threat.

    Attributes:
        averages: the model's averages over draws, if it is random.

    Args:
        counted_model: the model.
        threat: ball that adversarial images must lie in.
    """

    def __init__(self, counted_model: CountedModel, threat: Threat) -> None:
        self.counted_model, self.threat = counted_model, threat
        self.averages = Averages(counted_model)
        self.repeated: Tensor | None = None  # how often each row of the last batch was queried again

    @property
    def in_turn(self) -> bool:
        """Whether a result depends on earlier proposals for the example, as a random model's level does."""
        return self.counted_model.random

    def take_repeated(self) -> Int[Tensor, " n"] | None:
        """How often each row of the last batch was queried again; None if none was, or after it was taken."""
        taken, self.repeated = self.repeated, None
        return taken

    def start_over(self) -> None:
        """From now on the model counts as random; earlier results are void."""
        self.counted_model.random = True

    def clean(self, batch: Batch) -> Float[Tensor, "n classes"]:
        """Logits of the clean images; for a random model, the ln of its mean probabilities."""
        if self.counted_model.random:
            return self.averages.read(batch.images, batch).mean.clamp(min=1e-30).log()
        return self.counted_model.logits(batch.images, fresh(batch.keys))

    def proposals(self, images: Float[Tensor, "n c h w"], batch: Batch, tries: Int[Tensor, " n"]) -> VerifierResult:
        """Verify one proposal for each example.

        Args:
            tries: how many proposals of each example were tested before; counted up here, in place, if a random model's
                proposal gets that far (see :meth:`isthmus.attacks.engine.averages.Averages.confirm`).

        Raises:
            Randomness: the model counts as deterministic, but repeats a proposed success with other logits.
        """
        sane = images.isfinite().flatten(1).all(1)
        images = torch.where(per_image(sane, images), images, batch.images)
        inside = self.threat.contains(images, batch.images)
        if not inside.all():
            projected = self.threat.project(images, batch.images)
            images = torch.where(per_image(inside, images), images, projected)
            sane &= self.threat.contains(images, batch.images)
        if self.counted_model.random:
            broken, margin = self.averages.confirm(images, batch, tries)
            return VerifierResult(images, sane & broken, sane & margin.isfinite(), margin)
        logits = self.counted_model.logits(images, fresh(batch.keys))
        finite = sane & logits.isfinite().all(1)
        self.query_again(images, batch.keys, logits, finite & batch.reached(logits))
        broken, margin = finite & rounding.beyond_rounding(batch, logits), batch.margin(logits)
        maybe = finite & ~broken & batch.reached(logits) & ~rounding.alike(logits)
        for row in maybe.nonzero().squeeze(1).tolist():
            broken[row] = self._repeats(images[row : row + 1], batch.take(torch.tensor([row])))
        return VerifierResult(images, broken, finite, margin)

    def query_again(
        self,
        images: Float[Tensor, "n c h w"],
        keys: Int[Tensor, " n"],
        logits: Float[Tensor, "n classes"],
        chosen: Bool[Tensor, " n"],
    ) -> None:
        """Query some of these images, whose logits are known, once more.

        Logits that depend on the rest of the batch are not random: the same batch repeats them.

        Raises:
            Randomness: the logits differ by more than rounding, and so do those of the whole batch.
        """
        rows = chosen.nonzero().squeeze(1)
        if self.counted_model.random or len(rows) == 0:
            return
        keys = fresh(keys)
        with suppress(ModelError):  # the model may accept batches of one size only
            again = self.counted_model.logits(images[rows], keys[rows])
            self.repeated = chosen.long().cpu()
            if not rounding.differ(logits[rows], again):
                return
        if any(rounding.differ(logits, self.counted_model.logits(images, keys)) for _ in range(REPEATS)):
            raise Randomness

    def holds(self, images: Float[Tensor, "n c h w"], batch: Batch) -> Bool[Tensor, " n"]:
        """Whether a deterministic model's adversarial examples are inside ball and box and succeed on a further pass.

        Raises:
            Randomness: the logits of the same batch differ.
        """
        inside = self.threat.contains(images, batch.images)
        logits = self.counted_model.logits(images, batch.keys)
        right = ~(logits.isfinite().all(1) & batch.reached(logits))
        self.query_again(images, batch.keys, logits, right)
        return inside & ~right

    def _repeats(self, image: Float[Tensor, "1 c h w"], example: Batch) -> bool:
        """Whether argmax errs in batches of other sizes too, each filled with the image.

        If logits are coarse, since they are rounded, votes, or carry a large constant, margins are small and real, or
        they are ties. As on a clean image, argmax decides.
        """
        for copies in COPIES:
            batch = example.take(torch.zeros(copies, dtype=torch.int64))
            images = image.expand(copies, *image.shape[1:]).contiguous()
            try:
                logits = self.counted_model.logits(images, fresh(batch.keys))
            except ModelError:  # the model may accept batches of one size only
                return False
            if not bool(batch.reached(logits).all()):
                return False
        return True
