"""What a robustness evaluation found, example by example, with the adversarial images that prove it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from isthmus import metrics
from isthmus.attacks import flags
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.state import EvaluationState, check_columns, seal
from isthmus.attacks.threats import Threat, parse
from isthmus.core import files
from isthmus.core.errors import ConfigError, DataError, FileError, brief
from isthmus.core.types import Interval, Metric, Record
from isthmus.metrics import wilson

Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(gt=0)]

CLEAN = "clean"
_LARGEST = 2**26  # numbers in one image that a file may claim
_ABSORBED = 4096  # rows of another result that are looked at together
_FORMAT = "isthmus robust result 3"
_OLD = "isthmus robust result 2"  # the same of deterministic models; of random ones it held the confident count alone
_ADDED = ("unbroken", "closest")  # a file of an earlier version lacks them
_READ = ("lead", "draws", "once", "sure")
_KEPT = ("correct", "broken", "stage", "gap", "run", "look", "aim", "forwards", "backwards", "blind", "tries")


@dataclass(frozen=True)
class RobustResult:
    """Robustness of one classifier on N examples against one threat. Every tensor is on the CPU.

    Each example is exactly one of: broken (its witness is misclassified, inside ball and box), invalid (set
    aside because something was NaN or infinite; neither robust nor broken), or still standing.

    A random model has three robust accuracies, all read at the image that came closest to the attacker's success, on
    draws that no attack has seen: :attr:`average`, which ``accuracy``, ``robust`` and ``broken`` follow;
    :attr:`one_evaluation`, the papers' rule; and :attr:`confident`. Of a deterministic model the three are one.

    Attributes:
        threat: norm and ε.
        attacks: labels of the attacks in the order they ran; the first is "clean", the unperturbed image.
        examples: images, labels, keys, and targets if an attack had to reach a given class.
        ledger: what was found, one row per example; see :class:`isthmus.attacks.engine.state.EvaluationState`.
        forward_passes: example-passes through the model, all in all; likewise ``backward_passes``.
        random: whether the model answers at random; then examples are broken by its average over fresh draws
            (:mod:`isthmus.attacks.engine.averages`).
        complete: false where the evaluation was interrupted: what stands has not met every attack.
        spent: example-passes, forward and backward, of each of ``attacks``.
        seed: what the examples' keys were made from, together with their positions in the data set.
        verified: whether every adversarial example was checked on a further forward pass at the end.
            Of a random model, whether its average was read there.
        unconfirmed: examples that this check did not confirm. They count as robust; see :attr:`flags`.
        verification_passes: what the check took; counted in ``forward_passes``, too.
        exhausted: whether the budget of passes or time ended it; not kept in a file.
    """

    threat: Threat
    attacks: tuple[str, ...]
    examples: Batch
    ledger: EvaluationState
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

    def __len__(self) -> int:
        return len(self.ledger)

    @property
    def correct(self) -> Bool[Tensor, " n"]:
        """Whether the clean image is classified as its label."""
        return self.ledger.correct

    @property
    def broken(self) -> Bool[Tensor, " n"]:
        """Whether a witness was found. Clean errors count as broken."""
        return self.ledger.broken

    @property
    def invalid(self) -> Bool[Tensor, " n"]:
        """Whether the model's logits or gradient, or an attack's proposal, were not finite."""
        return (self.stage >= 0) & ~self.broken

    @property
    def robust(self) -> Bool[Tensor, " n"]:
        """Examples that still stand: neither broken nor invalid."""
        return self.ledger.standing

    @property
    def stage(self) -> Int[Tensor, " n"]:
        """Position in ``attacks`` of what broke or invalidated the example; −1 where it still stands."""
        return self.ledger.stage

    @property
    def adversarial(self) -> Float[Tensor, "n c h w"]:
        """An image for every example, finite and inside ball and box: what to give the model in place of ``images``.

        Broken examples have their adversarial image, which for a clean error is the clean image. All others, robust
        and invalid, have the clean image; of a random model the image that came closest to the attack's success.

        So of a deterministic model with no example invalid and no targets, ``(model(adversarial).argmax(1) ==
        labels)`` has the mean :attr:`accuracy`.

        Raises:
            DataError: the result is from a file of an earlier version, which kept no image of robust examples.
        """
        others = self.examples.images if self.ledger.nearest is None else self.ledger.nearest
        images = torch.where(self.broken[:, None, None, None], self.witnesses, others)
        if images.isnan().any():
            raise DataError(
                "The file of this result is from an earlier version of isthmus and has no images of robust examples; "
                "use `witnesses` and `broken`, or run the evaluation again."
            )
        return images

    @property
    def witnesses(self) -> Float[Tensor, "n c h w"]:
        """:attr:`adversarial` of broken examples alone, and NaN for all others. Do not give it to a model whole."""
        return self.ledger.witnesses

    @property
    def sizes(self) -> Float[Tensor, " n"]:
        """‖δ‖ of each witness in the threat's norm; NaN where not broken."""
        return self.threat.norm(self.witnesses.double() - self.examples.images.double()).float()

    @property
    def keys(self) -> Int[Tensor, " n"]:
        """Keys of the examples, from which a random model's noise at judging derives."""
        return self.examples.keys

    @property
    def targeted(self) -> bool:
        """Whether an attack had to reach a given class.

        Then "broken" means it did, and ``accuracy`` is the share of examples that it could not bring there.
        """
        return self.examples.targets is not None

    @property
    def accuracy(self) -> float:
        """Share of all N examples that still stand. An upper bound on what a stronger attack would leave.

        Of a random model, the share that its average prediction gets right (:attr:`average`). Where that was not read,
        since the evaluation was interrupted or ``verify`` was off, the share not shown to be wrong with confidence.
        """
        return self._share(self.robust)

    @property
    def interval(self) -> Interval:
        """95% Wilson interval of :attr:`accuracy`, as an estimate for the distribution of the examples."""
        return wilson(int(self.robust.sum()), len(self))

    @property
    def average(self) -> Metric:
        """Share of examples that the average prediction over many draws gets right, with a 95% interval over examples.

        This is :attr:`accuracy`. Not measured where a random model's evaluation was interrupted or not verified.
        """
        return self._measured(self.robust)

    @property
    def one_evaluation(self) -> Metric:
        """The papers' rule: share of examples that one evaluation gets right, the first draw of the final reading.

        One evaluation averages as many samples of the code as the model does itself, 12 in the papers.
        """
        return self._measured(self.robust if self.ledger.once is None else ~self.invalid & ~self.ledger.once)

    @property
    def confident(self) -> Metric:
        """Share of examples whose average prediction is not shown to be wrong with 99% confidence each."""
        return self._measured(self.robust if self.ledger.sure is None else ~self.invalid & ~self.ledger.sure)

    def _measured(self, right: Tensor) -> Metric:
        if self.random and not self.verified:
            note = "the average was not read: the evaluation was interrupted, or verify was off"
            return Metric(value=None, unit="fraction", n=len(self), note=note)
        return metrics.proportion(int(right.sum()), len(self))

    @property
    def clean_accuracy(self) -> float:
        """Share of all N examples whose clean image is classified as its label."""
        return self._share(self.correct)

    @property
    def broken_by(self) -> tuple[str | None, ...]:
        """Label of the attack that broke each example; None where it is not broken."""
        stages = zip(self.stage.tolist(), self.broken.tolist(), strict=True)
        return tuple(self.attacks[stage] if broken else None for stage, broken in stages)

    @property
    def by_attack(self) -> dict[str, float]:
        """Accuracy left after each attack, in the order they ran."""
        standing = [(self.stage < 0) | (self.stage > position) for position in range(len(self.attacks))]
        return {label: self._share(left) for label, left in zip(self.attacks, standing, strict=True)}

    @property
    def flags(self) -> tuple[str, ...]:
        """Signs that :attr:`accuracy` may be too good, each with what to do; see :mod:`isthmus.attacks.flags`."""
        return flags.flags(self)

    def _share(self, mask: Tensor) -> float:
        return int(mask.sum()) / len(self)

    def after(self, lost: RobustResult) -> RobustResult:
        """This result, with the passes of an attempt that was given up; they are booked on the clean images."""
        return replace(
            self,
            forward_passes=self.forward_passes + lost.forward_passes,
            backward_passes=self.backward_passes + lost.backward_passes,
            spent=(self.spent[0] + lost.forward_passes + lost.backward_passes, *self.spent[1:]),
        )

    def absorb(self, other: RobustResult) -> RobustResult:
        """Take over another result's witnesses that happen to lie inside this result's ball.

        Of a random model also those that are wrong with confidence, where this result's own are not.

        Args:
            other: a result of the same attacks, model and examples at another ε.
        """
        assert other.attacks == self.attacks
        ledger = self.ledger.take(torch.arange(len(self)))
        wanted = self.robust & other.broken
        if self.ledger.sure is not None and other.ledger.sure is not None:
            wanted |= ~self.ledger.sure & other.ledger.sure & ~self.invalid
        for part in torch.split(wanted.nonzero().squeeze(1), _ABSORBED):
            rows = part[self.threat.contains(other.witnesses[part], self.examples.images[part])]
            found = other.ledger.take(rows)
            found.forwards, found.backwards = ledger.forwards[rows], ledger.backwards[rows]
            ledger.put(rows, found)
        return replace(self, ledger=ledger)

    def save(self, path: str | Path) -> None:
        """Write everything to one safetensors file, atomically, with the clean image of every example.

        Adversarial images take four bytes per pixel, and so do clean ones unless they come from 8-bit images (one).

        Raises:
            FileError: it cannot be written; an older file stays as it was.
        """
        rows = self.broken.nonzero().squeeze(1)
        attacked = (self.broken & (self.stage > 0)).nonzero().squeeze(1)
        columns = self.ledger.columns()
        tensors = {name: columns[name] for name in (*_KEPT, *(_READ if self.random else ()))}
        tensors |= {"labels": self.examples.labels, "keys": self.keys}
        tensors |= {
            "originals": _packed(self.examples.images[rows]),
            "witnesses": self.witnesses[attacked],
        }
        if not self.examples.images.isnan().any():  # not from a file of an earlier version
            tensors["unbroken"] = _packed(self.examples.images[~self.broken])
        if self.ledger.nearest is not None:
            tensors["closest"] = self.ledger.nearest[~self.broken]
        if self.examples.targets is not None:
            tensors["targets"] = self.examples.targets
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        facts = {
            "threat": str(self.threat),
            "attacks": self.attacks,
            "shape": tuple(self.witnesses.shape),
            "forward_passes": self.forward_passes,
            "backward_passes": self.backward_passes,
            "random": self.random,
            "complete": self.complete,
            "spent": self.spent,
            "seed": self.seed,
            "verified": self.verified,
            "unconfirmed": self.unconfirmed,
            "verification_passes": self.verification_passes,
        }
        text = json.dumps(facts)
        files.write_bytes(path, save(tensors, {"format": _FORMAT, "facts": text, "seal": seal(tensors, text)}))

    @classmethod
    def joined(cls, results: Sequence[RobustResult]) -> RobustResult:
        """One result of several for the same model, threat and attacks on different examples, in this order."""
        first, *others = results
        ledger, examples = first.ledger.closed(), first.examples
        for other in others:
            ledger, examples = ledger.joined(other.ledger.closed()), examples.joined(other.examples)
        return replace(
            first,
            ledger=ledger,
            examples=examples,
            forward_passes=sum(result.forward_passes for result in results),
            backward_passes=sum(result.backward_passes for result in results),
            random=any(result.random for result in results),
            complete=all(result.complete for result in results),
            spent=tuple(map(sum, zip(*(result.spent for result in results), strict=True))),
            verified=all(result.verified for result in results),
            unconfirmed=sum(result.unconfirmed for result in results),
            verification_passes=sum(result.verification_passes for result in results),
        )

    @classmethod
    def load(cls, path: str | Path) -> RobustResult:
        """Read a file that :meth:`save` wrote; runs no code from it.

        Raises:
            FileError: it is missing, truncated, or something else.
        """
        files.check_regular(path)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") not in (_FORMAT, _OLD):
                    raise FileError(f"{path} is not a robustness result of this version of isthmus.")
                facts = _Facts.model_validate_json(metadata["facts"], strict=True)
                if facts.random and metadata["format"] == _OLD:
                    raise FileError(
                        f"{path} holds the result of a random model from an older version of isthmus, which counted an "
                        "example as broken only with 99% confidence; run the evaluation again."
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return _assembled(tensors, facts)
        except FileNotFoundError:
            raise FileError(f"There is no file {path}.") from None
        except (
            SafetensorError,
            OSError,
            ValueError,
            KeyError,
            TypeError,
            IndexError,
            RuntimeError,
            ConfigError,
        ) as error:
            reason = "its facts are not those of a result" if isinstance(error, ValidationError) else brief(error)
            raise FileError(
                f"{path} is not a readable robustness result ({reason}); run the evaluation again."
            ) from None


def is_sealed(path: str | Path) -> bool:
    """Whether a file that :meth:`RobustResult.load` reads still has the content that was saved, by its SHA-256."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return bool(seal(tensors, metadata["facts"]) == metadata.get("seal"))


class _Facts(Record):
    """What a file says of its tensors."""

    threat: str
    attacks: Annotated[tuple[str, ...], Field(min_length=1)]
    shape: tuple[Size, Size, Size, Size]
    forward_passes: Count
    backward_passes: Count
    random: bool
    complete: bool
    spent: tuple[Count, ...]
    seed: int
    verified: bool = False
    unconfirmed: Count = 0
    verification_passes: Count = 0


def _check(tensors: dict[str, Tensor], facts: _Facts) -> None:
    """Whether tensors and facts belong together, before there is memory for what they claim.

    Raises:
        ValueError: they do not.
    """
    broken, stage, image = tensors["broken"], tensors["stage"], facts.shape[1:]
    check_columns({name: tensors[name] for name in (*_KEPT, *(_READ if facts.random else ()))}, facts.shape)
    check_columns({"stage": tensors["labels"]}, facts.shape)
    check_columns({"stage": tensors["keys"]}, facts.shape)
    check_columns({"stage": tensors.get("targets", tensors["labels"])}, facts.shape)
    count = len(facts.attacks)
    if not ((stage >= -1) & (stage < count)).all() or not len(set(facts.attacks)) == len(facts.spent) == count:
        raise ValueError("its stages are not those of its attacks")
    needed = {"originals": broken, "witnesses": broken & (stage > 0), "unbroken": ~broken, "closest": ~broken}
    for name, rows in needed.items():
        if name in _ADDED and name not in tensors:
            continue
        if tuple(tensors[name].shape) != (int(rows.sum()), *image) or math.prod(image) > _LARGEST:
            raise ValueError(f"its {name} have the shape {tuple(tensors[name].shape)}, of images {facts.shape}")
        if name in _ADDED and not tensors[name].isfinite().all():
            raise ValueError(f"its {name} have NaN or infinite pixels")


def _assembled(tensors: dict[str, Tensor], facts: _Facts) -> RobustResult:
    _check(tensors, facts)
    broken, stage = tensors["broken"], tensors["stage"]
    images = torch.full(facts.shape, torch.nan)
    images[broken] = _unpacked(tensors["originals"])
    if "unbroken" in tensors:
        images[~broken] = _unpacked(tensors["unbroken"])
    kept = (*_KEPT, *(_READ if facts.random else ()))
    ledger = replace(EvaluationState.new(images), **{name: tensors[name] for name in kept})
    if "closest" in tensors:
        ledger.nearest = images.clone()
        ledger.nearest[~broken] = tensors["closest"]
    ledger.witnesses[broken] = images[broken]
    ledger.witnesses[broken & (stage > 0)] = tensors["witnesses"]
    examples = Batch(images, tensors["labels"], tensors["keys"], tensors.get("targets"))
    return RobustResult(
        threat=parse(facts.threat),
        attacks=facts.attacks,
        examples=examples,
        ledger=ledger,
        forward_passes=facts.forward_passes,
        backward_passes=facts.backward_passes,
        random=facts.random,
        complete=facts.complete,
        spent=facts.spent,
        seed=facts.seed,
        verified=facts.verified,
        unconfirmed=facts.unconfirmed,
        verification_passes=facts.verification_passes,
    )


def _packed(images: Tensor) -> Tensor:
    """Images as bytes where that loses nothing."""
    levels = (images * 255).round()
    return levels.to(torch.uint8) if torch.equal(levels / 255, images) else images


def _unpacked(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images
