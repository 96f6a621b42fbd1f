"""Checking a result that somebody hands over, from nothing but its witnesses, their originals and the model.

No attack runs and nothing the file says is believed: every example that it calls broken must have a witness inside ball
and box that the model misclassifies on a fresh forward pass in float32. So a robust accuracy that verifies is an upper
bound on the model's, whoever claims it. What no file can prove is that an example stands.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from torch import Tensor, nn

from isthmus.attacks.engine import memory, optimized_model
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.inputs import check_classes, check_model, check_whole, tensor
from isthmus.attacks.engine.verifier import Randomness, Verifier
from isthmus.attacks.result import RobustResult, is_sealed
from isthmus.attacks.threats import Threat
from isthmus.core import files
from isthmus.core.errors import DataError
from isthmus.core.preserve_state import device_of, preserve_state

_MISRECORDED = "the original is not classified as recorded"  # by another model, or under another label; no less broken
_UNSURE = "the witness is not misclassified with the confidence that is recorded"  # but it is on average


@dataclass(frozen=True)
class Verification:
    """What became of a claimed robust accuracy when it was recomputed.

    Attributes:
        threat: the ball that witnesses were held to: the file's, so look whether it is the one you mean.
        n: examples.
        claimed: robust accuracy that the result states.
        verified: robust accuracy that this model has left on its witnesses: the share of examples not proven to
            be broken, and were not set aside as invalid (for which the result is believed).
        broken: how many examples are claimed to be broken.
        proven: how many of them are.
        failures: row of each example whose record does not hold, with the reason.
        largest: largest ‖δ‖ of a witness, in the threat's norm; 0 where nothing is broken.
        examples_match: whether originals and labels are those of the data set, bit for bit; None if it was not given.
        intact: whether the file is as it was written (its SHA-256); None for a result that came in memory.
        complete: false where the evaluation was interrupted; what it says of broken examples holds even so.
        examples: SHA-256 of images and labels, the ones that were given where they match, else the result's own.
        attacks: what the result names. Nobody can verify that these attacks ran, or that the rest stood against them.
    """

    threat: Threat
    n: int
    claimed: float
    verified: float
    broken: int
    proven: int
    failures: dict[int, str]
    largest: float
    examples_match: bool | None
    intact: bool | None
    complete: bool
    examples: str
    attacks: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether everything holds, and the two accuracies are exactly equal."""
        sound = self.examples_match is not False and self.intact is not False
        return sound and not self.failures and self.verified == self.claimed

    @property
    def reasons(self) -> dict[str, int]:
        """How many examples failed for which reason, most frequent first."""
        return dict(Counter(self.failures.values()).most_common())


def verify(
    result: RobustResult | str | Path,
    model: nn.Module,
    *,
    images: Float[Tensor, "n c h w"] | ArrayLike | None = None,
    labels: Int[Tensor, " n"] | ArrayLike | None = None,
    batch_size: int = 256,
) -> Verification:
    """Recompute a robust accuracy from its witnesses.

    A model that answers a successful image differently when asked again is random, whatever the result says. A random
    model's average is read on the very draws that it was read on first, which repeat from the examples' keys.
    Of a model that remembers what it was asked, fresh copies are asked (:mod:`isthmus.attacks.engine.memory`). Another
    model than the one attacked may be given: what fails then did not transfer to it.

    Args:
        result: a result, or the file that holds one. What has been changed in a file after it was written is found by
            the file's checksum; whoever changes that too must still find witnesses that hold.
        model: from images in [0, 1] to logits; afterwards as it was.
        images, labels: the examples as the data set has them, in the result's order; without them nothing is known
            of the originals but what the result says.
        batch_size: examples at a time.

    Raises:
        FileError: there is no such file, or it holds no result.
        ModelError: the model is no module, or fails on the images.
        DataError: images without labels, or labels that the model has no logit for.
    """
    check_model(model)
    if (images is None) != (labels is None):
        raise DataError("Images and labels of the data set go together; give both or neither.")
    claim = result if isinstance(result, RobustResult) else RobustResult.load(result)
    intact = None if isinstance(result, RobustResult) else is_sealed(result)
    given = None if images is None or labels is None else (tensor(images, "images"), tensor(labels, "labels"))
    match = None if given is None else _match(claim, *given)
    device, held = device_of(model, claim.examples.images), _held(claim.examples)
    if held.any():
        model = memory.without(model, claim.examples.images[held], claim.threat)
    with preserve_state(model, device, 0):
        examples = (
            replace(claim.examples, images=given[0].cpu().float()) if match and given is not None else claim.examples
        )
        failures = _failures(claim, examples, model, device, check_whole(batch_size, "batch_size"))
    unproven = torch.zeros(len(claim), dtype=torch.bool)
    unproven[[row for row, reason in failures.items() if reason not in (_MISRECORDED, _UNSURE)]] = True
    stands = torch.where(unproven, claim.broken, claim.robust)
    return Verification(
        threat=claim.threat,
        n=len(claim),
        claimed=claim.accuracy,
        verified=int(stands.sum()) / len(claim),
        broken=int(claim.broken.sum()),
        proven=int((claim.broken & ~unproven).sum()),
        failures=failures,
        largest=float(claim.sizes[claim.broken].max()) if claim.broken.any() else 0.0,
        examples_match=match,
        intact=intact,
        complete=claim.complete,
        examples=files.sha256(examples.images.cpu().numpy(), examples.labels.cpu().numpy()),
        attacks=claim.attacks,
    )


def _match(claim: RobustResult, images: Tensor, labels: Tensor) -> bool:
    """Whether the originals that the result holds, and all labels, are these bit for bit."""
    if images.shape != claim.examples.images.shape or not torch.equal(labels.cpu().long(), claim.examples.labels):
        return False
    held = _held(claim.examples)
    return torch.equal(images.cpu().float()[held], claim.examples.images[held])


def _held(examples: Batch) -> Bool[Tensor, " n"]:
    """Examples whose image is there."""
    return ~examples.images.flatten(1).isnan().any(1)


def _failures(
    claim: RobustResult, examples: Batch, model: nn.Module, device: torch.device, size: int
) -> dict[int, str]:
    """Rows whose record does not hold, of those whose image is there."""
    rows = (_held(examples) | claim.broken).nonzero().squeeze(1)
    if not len(rows):
        return {}
    judge = Verifier(CountedModel(model), claim.threat)
    judge.oracle.rows = size
    judge.oracle.random = claim.random or _is_random(judge.oracle, examples.take(rows), device)
    try:
        return _found(judge, claim, examples, device, rows, size)
    except Randomness:
        judge.oracle.random = True
        return _found(judge, claim, examples, device, rows, size)


def _found(
    judge: Verifier, claim: RobustResult, examples: Batch, device: torch.device, rows: Tensor, size: int
) -> dict[int, str]:
    found: dict[int, str] = {}
    for part in torch.split(rows, size):
        faults = _faults(judge, examples.take(part).to(device), claim, part)
        for reason, failed in faults.items():
            for row in part[failed.cpu()].tolist():
                found.setdefault(row, reason)
    return dict(sorted(found.items()))


def _is_random(oracle: CountedModel, examples: Batch, device: torch.device) -> bool:
    return oracle.takes_keys or optimized_model.is_random(oracle, examples, device)


def _faults(judge: Verifier, batch: Batch, claim: RobustResult, rows: Tensor) -> dict[str, Bool[Tensor, " n"]]:
    """What can be wrong with examples, the gravest first, and with which of them it is."""
    ledger = claim.ledger.take(rows).to(batch.images.device)
    broken, robust = ledger.broken, ledger.standing & ~ledger.broken
    witnesses = torch.where(broken[:, None, None, None], ledger.witnesses, batch.images)
    logits = judge.clean(batch)
    check_classes(batch, logits.shape[1])
    finite = logits.isfinite().all(1)
    correct = finite & (logits.argmax(1) == batch.labels)
    flat = witnesses.flatten(1)
    wrong, gone, sure = _wrong(judge, witnesses, batch)
    claimed = ledger.sure if ledger.sure is not None and claim.verified else torch.zeros_like(broken)
    random = judge.oracle.random  # then an original that is wrong on average, but not surely, stands
    attacked = broken & (ledger.stage > 0)
    clean = broken & ~attacked
    aim = "classified as its target" if batch.targets is not None else "misclassified"
    return {
        "is recorded as broken and as standing at once": broken & (ledger.stage < 0),
        "there is no witness": broken & ~flat.isfinite().all(1),
        "the witness is outside the box [0, 1]": broken & ((flat < 0) | (flat > 1)).any(1),
        "the witness is outside the ball": broken & ~judge.threat.contains(witnesses, batch.images),
        "the model gives NaN or infinity on the witness": broken & gone,
        f"the witness is not {aim}": attacked & ~wrong,
        f"the original is not {aim}, though recorded so": clean
        & ~(wrong if random else finite & batch.reached(logits)),
        f"stands, but its original is {aim}": robust & finite & batch.reached(logits) & (not random),
        _UNSURE: broken & claimed & ~sure,
        _MISRECORDED: correct != ledger.correct,
    }


def _wrong(judge: Verifier, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Whether images are classified as wanted, whether some logit is not finite, and whether they surely are."""
    if judge.oracle.random:
        reading = judge.read(images, batch)
        return reading.wrong, ~reading.mean.isfinite().all(1), reading.sure
    logits = judge.oracle.logits(images, batch.keys)
    judge.ask_again(images, batch.keys, logits, batch.reached(logits) & logits.isfinite().all(1))
    return batch.reached(logits), ~logits.isfinite().all(1), batch.reached(logits)
