"""The result of a robustness evaluation: what happened to each example, and the adversarial images that prove it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus import metrics
from isthmus.attacks import result_display, result_file, result_warnings
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.threats import Threat, parse
from isthmus.core.notebook import Summarized
from isthmus.core.types import Interval, Metric
from isthmus.metrics import wilson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLEAN = "clean"
_ABSORBED = 4096  # rows of another result that are compared at once


@dataclass(frozen=True, repr=False)
class RobustResult(Summarized):
    """Robustness of one classifier on N examples against one threat. Every tensor is on the CPU.

    Each example is exactly one of three: broken (its adversarial image is misclassified, inside ball and box), invalid
    (logits, gradient or proposal were NaN or infinite), or robust.

    A random model has three robust accuracies. All are computed at the image with the smallest margin found, on draws
    that no attack has seen: :attr:`average`, which ``accuracy``, ``robust`` and ``broken`` follow;
    :attr:`one_evaluation`, the papers' rule; and :attr:`confident`. For a deterministic model the three are equal.

    Attributes:
        threat: norm and ε.
        attacks: labels of the attacks in the order they ran; the first is "clean", the unperturbed image.
        examples: images, labels, keys, and the targets of a targeted evaluation.
        state: one row per example; see :class:`isthmus.attacks.engine.state.EvaluationState`.
        forward_passes, backward_passes: example-passes through the model.
        random: whether the model is random. Its examples are broken by its average over fresh draws
            (:mod:`isthmus.attacks.engine.averages`).
        complete: False if the evaluation was interrupted. Robust examples have then not met every attack.
        spent: example-passes, forward and backward, of each of ``attacks``.
        seed: the examples' keys derive from it and from their positions in the data set.
        verified: whether every adversarial image was checked on a further forward pass at the end. For a random model,
            whether its average was computed there.
        unconfirmed: examples that this check did not confirm. They count as robust; see :attr:`warnings`.
        verification_passes: forward passes of that check, included in ``forward_passes``.
        exhausted: whether a limit on passes or time ended the evaluation; not kept in a file.
        shard: which part of an evaluation this is, if it is one; see :mod:`isthmus.attacks.shards`.
    """

    threat: Threat
    attacks: tuple[str, ...]
    examples: Batch
    state: EvaluationState
    forward_passes: int
    backward_passes: int
    random: bool = False
    complete: bool = True
    spent: tuple[int, ...] = ()
    seed: int = 0
    verified: bool = False
    unconfirmed: int = 0
    verification_passes: int = 0
    exhausted: bool = False
    shard: result_file.ShardFacts | None = None

    def __len__(self) -> int:
        return len(self.state)

    # --- example by example ---

    @property
    def correct(self) -> Bool[Tensor, " n"]:
        """Whether the clean image is classified as its label."""
        return self.state.correct

    @property
    def broken(self) -> Bool[Tensor, " n"]:
        """Whether an adversarial image was found. Clean errors count as broken."""
        return self.state.broken

    @property
    def invalid(self) -> Bool[Tensor, " n"]:
        """Whether the model's logits or gradient, or an attack's proposal, were not finite."""
        return (self.stage >= 0) & ~self.broken

    @property
    def robust(self) -> Bool[Tensor, " n"]:
        """Examples that are neither broken nor invalid."""
        return self.state.robust

    @property
    def stage(self) -> Int[Tensor, " n"]:
        """Position in ``attacks`` of what broke or invalidated the example; −1 if it is robust."""
        return self.state.stage

    @property
    def broken_by(self) -> tuple[str | None, ...]:
        """Label of the attack that broke each example; None if it is not broken."""
        stages = zip(self.stage.tolist(), self.broken.tolist(), strict=True)
        return tuple(self.attacks[stage] if broken else None for stage, broken in stages)

    @property
    def adversarial(self) -> Float[Tensor, "n c h w"]:
        """An image for every example, finite and inside ball and box.

        For a broken example it is the adversarial image, which for a clean error is the clean image. For all others it
        is the clean image; for a random model, the image with the smallest margin found. For a deterministic model
        without invalid examples or targets, ``(model(adversarial).argmax(1) == labels)`` has the mean
        :attr:`accuracy`.
        """
        others = self.examples.images if self.state.nearest is None else self.state.nearest
        return torch.where(self.broken[:, None, None, None], self.state.adversarial, others)

    @property
    def sizes(self) -> Float[Tensor, " n"]:
        """‖δ‖ of each adversarial image in the threat's norm; NaN if the example is not broken."""
        return self.threat.norm(self.state.adversarial.double() - self.examples.images.double()).float()

    @property
    def keys(self) -> Int[Tensor, " n"]:
        """Keys of the examples. A random model's noise during verification derives from them."""
        return self.examples.keys

    @property
    def targeted(self) -> bool:
        """Whether an attack had to reach a given class.

        Then "broken" means that it did, and ``accuracy`` is the fraction of examples for which it could not.
        """
        return self.examples.targets is not None

    # --- summaries ---

    @property
    def accuracy(self) -> float:
        """Fraction of all N examples that are robust: an upper bound on the accuracy under a stronger attack.

        For a random model, the fraction that its average prediction gets right (:attr:`average`). If that was not
        computed, because the evaluation was interrupted or ``verify`` was off, the fraction not confidently wrong.
        """
        return self._fraction(self.robust)

    @property
    def interval(self) -> Interval:
        """95% Wilson interval of :attr:`accuracy`, as an estimate for the distribution of the examples."""
        return wilson(int(self.robust.sum()), len(self))

    @property
    def clean_accuracy(self) -> float:
        """Fraction of all N examples whose clean image is classified as its label."""
        return self._fraction(self.correct)

    @property
    def by_attack(self) -> dict[str, float]:
        """Robust accuracy after each attack, in the order they ran."""
        robust = [(self.stage < 0) | (self.stage > position) for position in range(len(self.attacks))]
        return {label: self._fraction(mask) for label, mask in zip(self.attacks, robust, strict=True)}

    @property
    def average(self) -> Metric:
        """Fraction of examples that the average prediction over many draws gets right, with a 95% interval.

        This is :attr:`accuracy`. It is not measured if a random model's evaluation was interrupted or not verified.
        """
        return self._metric(self.robust)

    @property
    def one_evaluation(self) -> Metric:
        """The papers' rule: fraction of examples that one evaluation gets right, the first draw of the final reading.

        One evaluation averages over the number of codes that the model itself samples, 12 in the papers.
        """
        return self._metric(self.robust if self.state.once is None else ~self.invalid & ~self.state.once)

    @property
    def confident(self) -> Metric:
        """Fraction of examples whose average prediction is not shown to be wrong with 99% confidence each."""
        return self._metric(self.robust if self.state.sure is None else ~self.invalid & ~self.state.sure)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Signs that :attr:`accuracy` may be too high, each with advice; see :mod:`isthmus.attacks.result_warnings`."""
        return result_warnings.warnings(self)

    def _metric(self, right: Tensor) -> Metric:
        if self.random and not self.verified:
            note = "the average was not computed: the evaluation was interrupted, or verify was off"
            return Metric(value=None, unit="fraction", n=len(self), note=note)
        return metrics.proportion(int(right.sum()), len(self))

    def _fraction(self, mask: Tensor) -> float:
        return int(mask.sum()) / len(self)

    # --- display ---

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row for each example, in their order.

        Its columns are ``label``, ``correct`` (on the clean image), ``robust``, ``broken``, ``invalid``, ``broken_by``
        (the attack, "clean" for a clean error, missing if not broken), ``size`` (‖δ‖ in the threat's norm, NaN if not
        broken), ``margin`` (the smallest found, in logits, negative if broken, infinite if unknown), and ``target`` of
        a targeted evaluation.

        Raises:
            ConfigError: pandas is not installed.
        """
        return result_display.table(self)

    def plot(self, most: int = 6) -> tuple[Figure, Any]:
        """Plot the first adversarial examples: original, adversarial image, and their difference enlarged.

        Args:
            most: the number of examples, at most.

        Returns:
            The figure, and its axes as an array of 3 rows with a column for each example.

        Raises:
            DataError: no attack broke an example.
        """
        return result_display.plot(self, most)

    def _summary(self) -> dict[str, str]:
        return result_display.summary(self)

    # --- combining results ---

    def after(self, lost: RobustResult) -> RobustResult:
        """This result, plus the passes of an attempt that was given up; they are added to those of "clean"."""
        return replace(
            self,
            forward_passes=self.forward_passes + lost.forward_passes,
            backward_passes=self.backward_passes + lost.backward_passes,
            spent=(self.spent[0] + lost.forward_passes + lost.backward_passes, *self.spent[1:]),
        )

    def absorb(self, other: RobustResult) -> RobustResult:
        """Take over adversarial images of another result that lie inside this result's ball.

        For a random model also those that are confidently wrong, if this result's own are not.

        Args:
            other: a result of the same attacks, model and examples at another ε.
        """
        assert other.attacks == self.attacks
        state = self.state.take(torch.arange(len(self)))
        wanted = self.robust & other.broken
        if self.state.sure is not None and other.state.sure is not None:
            wanted |= ~self.state.sure & other.state.sure & ~self.invalid
        for part in torch.split(wanted.nonzero().squeeze(1), _ABSORBED):
            rows = part[self.threat.contains(other.state.adversarial[part], self.examples.images[part])]
            found = other.state.take(rows)
            found.forwards, found.backwards = state.forwards[rows], state.backwards[rows]
            state.put(rows, found)
        return replace(self, state=state)

    @classmethod
    def joined(cls, results: Sequence[RobustResult]) -> RobustResult:
        """One result from several for the same model, threat and attacks on different examples, in this order."""
        first, *others = results
        state, examples = first.state.closed(), first.examples
        for other in others:
            state, examples = state.joined(other.state.closed()), examples.joined(other.examples)
        return replace(
            first,
            state=state,
            examples=examples,
            forward_passes=sum(result.forward_passes for result in results),
            backward_passes=sum(result.backward_passes for result in results),
            random=any(result.random for result in results),
            complete=all(result.complete for result in results),
            spent=tuple(map(sum, zip(*(result.spent for result in results), strict=True))),
            verified=all(result.verified for result in results),
            unconfirmed=sum(result.unconfirmed for result in results),
            verification_passes=sum(result.verification_passes for result in results),
            shard=None,
        )

    # --- files ---

    def save(self, path: str | Path) -> None:
        """Write everything to one safetensors file, atomically, including the clean images.

        Adversarial images take four bytes per pixel. Clean images take one if they are 8-bit images, else four.

        Raises:
            FileError: it cannot be written; an older file is left unchanged.
        """
        facts = {
            name: getattr(self, name) for name in result_file.Facts.model_fields if name not in ("threat", "shape")
        }
        shape = tuple(self.examples.images.shape)
        facts_record = result_file.Facts(threat=str(self.threat), shape=shape, **facts)
        result_file.write(path, self.examples, self.state, facts_record)

    @classmethod
    def load(cls, path: str | Path) -> RobustResult:
        """Read a file that :meth:`save` wrote; runs no code from it.

        Raises:
            FileError: it is missing, truncated, of an older version, or something else.
        """
        examples, state, facts = result_file.read(path)
        known = {name: getattr(facts, name) for name in type(facts).model_fields if name not in ("threat", "shape")}
        return cls(threat=parse(facts.threat), examples=examples, state=state, **known)
