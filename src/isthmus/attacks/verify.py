"""Verify a robustness result from its adversarial images and the model alone.

No attack runs, and no claim of the file is trusted: every example recorded as broken must have an adversarial image
inside ball and box that the model misclassifies on a fresh forward pass in float32. A verified robust accuracy is
therefore an upper bound on the model's. No file can prove that an example is robust.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from torch import Tensor, nn

from isthmus import metrics
from isthmus.attacks.engine import probes
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.inputs import check_classes, check_model, check_whole
from isthmus.attacks.engine.verifier import Randomness, Verifier
from isthmus.attacks.result import RobustResult
from isthmus.attacks.result_file import is_sealed
from isthmus.attacks.threats import Threat
from isthmus.core import files
from isthmus.core.errors import DataError
from isthmus.core.format import in_words, percent, size, threat_title
from isthmus.core.notebook import Summarized
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.core.progress import shown_progress
from isthmus.data.given import tensor

Progress = Callable[[int, int], None]
"""Called with done and total examples."""

_MISRECORDED = "the clean image is not classified as recorded"  # by another model or under another label
_UNSURE = "the adversarial image is not misclassified with the recorded confidence"  # but on average it is


@dataclass(frozen=True, repr=False)
class Verification(Summarized):
    """A claimed robust accuracy, and what a recomputation confirms.

    Attributes:
        threat: the ball that adversarial images must lie in. It is the file's; check that it is the one you mean.
        n: examples.
        claimed: robust accuracy that the result states.
        verified: robust accuracy of this model on the result's adversarial images: the fraction of examples neither
            proven to be broken nor recorded as invalid (which is not checked).
        broken: how many examples are claimed to be broken.
        proven: how many of them are.
        failures: row of each example whose record does not hold, with the reason.
        largest: largest ‖δ‖ of an adversarial image, in the threat's norm; 0 if nothing is broken.
        examples_match: whether clean images and labels equal those of the data set; None if it was not given.
        intact: whether the file is as it was written (its SHA-256); None for a result in memory.
        complete: False if the evaluation was interrupted; what it records of broken examples holds nevertheless.
        examples: SHA-256 of images and labels: the given ones if they match, else the result's own.
        attacks: the attacks that the result names. That they ran, and failed on the rest, cannot be verified.
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
        """Number of failures for each reason, most frequent first."""
        return dict(Counter(self.failures.values()).most_common())

    def _summary(self) -> dict[str, str]:
        verified = in_words(metrics.proportion(round(self.verified * self.n), self.n))
        facts = [f"{self.proven} of {self.broken} broken examples proven"]
        facts += [] if self.examples_match is None else [f"examples match: {'yes' if self.examples_match else 'no'}"]
        facts += [] if self.intact is None else [f"file intact: {'yes' if self.intact else 'no'}"]
        outcome = "agrees" if self.agrees else "does not agree"
        return {
            "Verification": f"{outcome}; {threat_title(str(self.threat))}, {size(self.n)}",
            "robust accuracy": f"claimed {percent(self.claimed)}, verified {verified}",
            "evidence": "; ".join([*facts, *([] if self.complete else ["interrupted"])]),
        }


def verify(
    result: RobustResult | str | Path,
    model: nn.Module,
    *,
    images: Float[Tensor, "n c h w"] | ArrayLike | None = None,
    labels: Int[Tensor, " n"] | ArrayLike | None = None,
    batch_size: int = 256,
    progress: Progress | bool | None = None,
) -> Verification:
    """Recompute a robust accuracy from its adversarial images.

    A model whose answer to a successful image changes from pass to pass is random, even if the result states otherwise.
    The average of a random model is computed on the draws of the evaluation, which repeat from the examples' keys. A
    stateful model is replaced by fresh copies (:mod:`isthmus.attacks.engine.probes`). Another model than the attacked
    one may be given: failures are then examples that did not transfer to it.

    Args:
        result: a result, or the file that holds one. The file's checksum reveals later changes; even with a new
            checksum, false adversarial images fail.
        model: from images in [0, 1] to logits; left as it was.
        images, labels: the examples of the data set, in the result's order. Without them the clean images are not
            checked.
        batch_size: examples at a time.
        progress: True, the default, for a bar if stderr is a terminal or in a notebook; False for none; or a function
            that is called with (done, total) examples.

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
    match = None
    if images is not None and labels is not None:
        match = _match(claim, tensor(images, "images"), tensor(labels, "labels"))
    device, examples = device_of(model, claim.examples.images), claim.examples
    model = probes.adapted(model, examples.images, claim.threat)
    check_whole(batch_size, "batch_size")
    shown = shown_progress(progress, "verify", lambda update: lambda done, total: update(done / total, ""))
    with preserve_state(model, device, 0), shown as report:
        failures = _failures(claim, model, batch_size, report)
    unproven = torch.zeros(len(claim), dtype=torch.bool)
    unproven[[row for row, reason in failures.items() if reason not in (_MISRECORDED, _UNSURE)]] = True
    robust = torch.where(unproven, claim.broken, claim.robust)
    return Verification(
        threat=claim.threat,
        n=len(claim),
        claimed=claim.accuracy,
        verified=int(robust.sum()) / len(claim),
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
    """Whether the result's clean images and labels equal these bit for bit."""
    if images.shape != claim.examples.images.shape or not torch.equal(labels.cpu().long(), claim.examples.labels):
        return False
    return torch.equal(images.cpu().float(), claim.examples.images)


def _failures(claim: RobustResult, model: nn.Module, size: int, progress: Progress | None) -> dict[int, str]:
    """Rows whose record does not hold, with the reason."""
    device, most = device_of(model, claim.examples.images), 0

    def report(done: int) -> None:
        nonlocal most
        if progress is not None and done > most:  # after the model was found to be random, all are verified again
            progress(done, len(claim))
        most = max(most, done)

    verifier = Verifier(CountedModel(model), claim.threat)
    verifier.counted_model.rows = size
    verifier.counted_model.random = claim.random or _is_random(verifier.counted_model, claim.examples, device)
    try:
        return _found(verifier, claim, device, size, report)
    except Randomness:
        verifier.counted_model.random = True
        return _found(verifier, claim, device, size, report)


def _found(
    verifier: Verifier, claim: RobustResult, device: torch.device, size: int, report: Callable[[int], None]
) -> dict[int, str]:
    found: dict[int, str] = {}
    for part in torch.split(torch.arange(len(claim)), size):
        faults = _faults(verifier, claim.examples.take(part).to(device), claim, part)
        for reason, failed in faults.items():
            for row in part[failed.cpu()].tolist():
                found.setdefault(row, reason)
        report(int(part[-1]) + 1)
    return dict(sorted(found.items()))


def _is_random(counted_model: CountedModel, examples: Batch, device: torch.device) -> bool:
    return counted_model.takes_keys or probes.is_random(counted_model, examples, device)


def _faults(verifier: Verifier, batch: Batch, claim: RobustResult, rows: Tensor) -> dict[str, Bool[Tensor, " n"]]:
    """Possible faults, the gravest first, and which examples have them."""
    state = claim.state.take(rows).to(batch.images.device)
    broken, robust = state.broken, state.robust & ~state.broken
    adversarial = torch.where(broken[:, None, None, None], state.adversarial, batch.images)
    logits = verifier.clean(batch)
    check_classes(claim.examples, logits.shape[1])
    finite = logits.isfinite().all(1)
    correct = finite & (logits.argmax(1) == batch.labels)
    flat = adversarial.flatten(1)
    wrong, not_finite, sure = _wrong(verifier, adversarial, batch)
    recorded = state.sure if state.sure is not None and claim.verified else torch.zeros_like(broken)
    random = verifier.counted_model.random  # then a clean image may be wrong on average, but not confidently
    attacked = broken & (state.stage > 0)
    clean = broken & ~attacked
    wanted = "classified as its target" if batch.targets is not None else "misclassified"
    return {
        "is recorded as broken and as robust at once": broken & (state.stage < 0),
        "there is no adversarial image": broken & ~flat.isfinite().all(1),
        "the adversarial image is outside the box [0, 1]": broken & ((flat < 0) | (flat > 1)).any(1),
        "the adversarial image is outside the ball": broken & ~verifier.threat.contains(adversarial, batch.images),
        "the model gives NaN or infinity on the adversarial image": broken & not_finite,
        f"the adversarial image is not {wanted}": attacked & ~wrong,
        f"the clean image is not {wanted}, though recorded so": clean
        & ~(wrong if random else finite & batch.reached(logits)),
        f"is recorded as robust, but its clean image is {wanted}": robust
        & finite
        & batch.reached(logits)
        & (not random),
        _UNSURE: broken & recorded & ~sure,
        _MISRECORDED: correct != state.correct,
    }


def _wrong(verifier: Verifier, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Whether images reach the attacker's goal, whether a logit is not finite, and whether they reach it surely."""
    if verifier.counted_model.random:
        reading = verifier.averages.read(images, batch)
        return reading.wrong, ~reading.mean.isfinite().all(1), reading.sure
    logits = verifier.counted_model.logits(images, batch.keys)
    verifier.query_again(images, batch.keys, logits, batch.reached(logits) & logits.isfinite().all(1))
    return batch.reached(logits), ~logits.isfinite().all(1), batch.reached(logits)
