"""Verify certificates with the model alone: recompute every bound by the method that gave it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from isthmus import metrics
from isthmus.attacks.engine.inputs import check_model
from isthmus.certificates.methods import BATCHED, METHODS, Problem, parts
from isthmus.certificates.network import read
from isthmus.certificates.regions import region
from isthmus.certificates.result import CertifiedResult
from isthmus.core import files
from isthmus.core.format import in_words, size, threat_title
from isthmus.core.notebook import Summarized
from isthmus.core.preserve_state import device_of, preserve_state

_BATCH = 32


@dataclass(frozen=True, repr=False)
class CertificateVerification(Summarized):
    """A claimed bracket, and what a recomputation confirms.

    Attributes:
        claimed: the result.
        confirmed: how many of its certificates were recomputed.
        failures: row of each example whose record does not hold, with the reason.
        examples: SHA-256 of images and labels.
    """

    claimed: CertifiedResult
    confirmed: int
    failures: dict[int, str]
    examples: str

    @property
    def agrees(self) -> bool:
        """Whether every certificate and every adversarial image holds."""
        return not self.failures

    @property
    def reasons(self) -> dict[str, int]:
        """Number of failures for each reason, most frequent first."""
        return dict(Counter(self.failures.values()).most_common())

    def _summary(self) -> dict[str, str]:
        result, certified = self.claimed, int(self.claimed.certified.sum())
        lower = in_words(metrics.proportion(self.confirmed, len(result)))
        outcome = "agrees" if self.agrees else f"does not agree: {len(self.failures)} failures"
        return {
            "CertificateVerification": f"{outcome}; {threat_title(str(result.threat))}, {size(len(result))}",
            "robust accuracy": f"at least {lower}; {self.confirmed} of {certified} certificates confirmed",
        }


def verify_certificates(result: CertifiedResult | str | Path, model: nn.Module) -> CertificateVerification:
    """Recompute the bounds of every certified example, and the prediction of every broken one. No attack runs.

    Args:
        result: a result, or the file that holds one.
        model: from images in [0, 1] to logits; left as it was.

    Raises:
        FileError: there is no such file, or it holds no certified result.
        CannotCertify: the model has a layer without sound bounds.
    """
    check_model(model)
    claim = result if isinstance(result, CertifiedResult) else CertifiedResult.load(result)
    device = device_of(model, claim.images)
    network = read(model, claim.images)
    failures: dict[int, str] = {}
    with preserve_state(model, device, 0), torch.no_grad():
        for row in (claim.broken & claim.certified).nonzero().squeeze(1).tolist():
            failures[row] = "is recorded as broken and as certified at once"
        for rows in parts(claim.broken, _BATCH):
            _check_broken(claim, model, rows, device, failures)
        for position, method in enumerate(claim.methods):
            for rows in parts(claim.method == position, _BATCH if method in BATCHED else 1):
                problem = Problem(
                    network, region(claim.threat, claim.images[rows].to(device)), claim.labels[rows].to(device)
                )
                used = [name for name in METHODS if name in claim.methods[: position + 1]]
                held = torch.full_like(claim.margins[rows], -torch.inf)
                for found in problem.bounds(used):
                    held = found.margins.cpu()
                for row, holds in zip(rows.tolist(), (held > 0).all(1).tolist(), strict=True):
                    if not holds:
                        failures.setdefault(row, "the bound does not certify this model's prediction")
    missing = sum(1 for row in failures if bool(claim.certified[row]))
    return CertificateVerification(
        claimed=claim,
        confirmed=int(claim.certified.sum()) - missing,
        failures=dict(sorted(failures.items())),
        examples=files.sha256(claim.images.numpy(), claim.labels.numpy()),
    )


def _check_broken(
    claim: CertifiedResult, model: nn.Module, rows: Tensor, device: torch.device, failures: dict[int, str]
) -> None:
    images, labels = claim.adversarial[rows], claim.labels[rows]
    wrong = model(images.to(device)).argmax(1).cpu() != labels
    inside = claim.threat.contains(images, claim.images[rows])
    for row, holds, within in zip(rows.tolist(), wrong.tolist(), inside.tolist(), strict=True):
        if not within:
            failures.setdefault(row, "the adversarial image is outside ball and box")
        elif not holds:
            failures.setdefault(row, "the adversarial image is not misclassified")
