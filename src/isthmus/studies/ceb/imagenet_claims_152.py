"""What the paper says of ResNet-152 alone: there capacity lets CEB stand PGD."""

from __future__ import annotations

from isthmus.studies.ceb.imagenet import VARIANTS
from isthmus.studies.ceb.imagenet_claims import ALIKE, NOTHING, PGD, SOMETHING, accuracy, unmeasured
from isthmus.studies.ceb.imagenet_results import NUMBERS, cells_at, chosen, error, variants
from isthmus.studies.old.evidence import (
    ClaimResult,
    Estimate,
    Verdict,
    all_of,
    bonferroni,
    difference,
    exceeds,
    falls_below,
    percent,
)
from isthmus.studies.old.study import StudyRecord


def findings(record: StudyRecord) -> list[ClaimResult]:
    """Three claims about PGD, and one about the width of the deterministic network."""
    return [_stands(record), _autoaugment_hurts(record), _wide_exceeds(record), _wide_overfits(record)]


def _stands(record: StudyRecord) -> ClaimResult:
    claim = (
        f"Under PGD CEB keeps more than {percent(SOMETHING)} accuracy, and the deterministic network less than "
        f"{percent(NOTHING)}, everywhere."
    )
    said, verdicts = [], []
    for variant in variants(record):
        for name in PGD:
            level = bonferroni(2 * len(PGD) * len(variants(record)))
            ours, plain = _left(record, variant, name, level), accuracy(record, variant, None, name, level)
            if ours is None or plain is None:
                return unmeasured(record, claim, name)
            verdicts += [exceeds(ours, SOMETHING), falls_below(plain, NOTHING)]
            said.append(f"{_norm(name)}, {VARIANTS[variant]}: {ours} against {plain}")
    reason = f"{'; '.join(said)}." if said else "There is no pair of models to judge."
    return ClaimResult(claim=claim, verdict=all_of(verdicts), reason=reason.strip())


def _autoaugment_hurts(record: StudyRecord) -> ClaimResult:
    claim = "AutoAugment makes CEB less robust to PGD."
    return _compared(record, claim, "plain", "autoaugment", "Without it, more is left by")


def _wide_exceeds(record: StudyRecord) -> ClaimResult:
    claim = "The wide CEB network with AutoAugment is more robust to PGD than the narrow one without."
    return _compared(record, claim, "wide", "plain", "More is left by")


def _compared(record: StudyRecord, claim: str, more: str, less: str, words: str) -> ClaimResult:
    """Whether the CEB model of one way of training keeps more under PGD than that of another, in both norms."""
    if not {more, less} <= set(variants(record)):
        return _untried(claim)
    said, verdicts = [], []
    for name in PGD:
        first, second = (_left(record, variant, name) for variant in (more, less))
        if first is None or second is None:
            return unmeasured(record, claim, name)
        lead = difference(first, second)
        verdicts.append(exceeds(lead, 0.0))
        said.append(f"{lead} in {_norm(name)}")
    reason = f"{words} {' and '.join(said)}, at the chosen ρ; above 0 in both counts."
    return ClaimResult(claim=claim, verdict=all_of(verdicts), reason=reason.strip())


def _wide_overfits(record: StudyRecord) -> ClaimResult:
    claim = "Twice the width gains the deterministic network nothing in clean error and mCE, and CEB something in both."
    if not {"autoaugment", "wide"} <= set(variants(record)):
        return _untried(claim)
    said, verdicts = [], []
    for name in ("clean", "mce"):
        gains = [_by_width(record, bottleneck, name) for bottleneck in (False, True)]
        plain, ours = gains
        if plain is None or ours is None:
            return unmeasured(record, claim, name)
        verdicts += [falls_below(plain, ALIKE), exceeds(ours, 0.0)]
        said.append(f"{NUMBERS[name]}: the deterministic network {plain}, CEB {ours}")
    return ClaimResult(
        claim=claim,
        verdict=all_of(verdicts),
        reason=f"By twice the width fall: {'; '.join(said)}. Less than {percent(ALIKE)} counts as nothing (our limit; "
        f"more images would be needed to say that width harms), above 0 as something.",
    )


def _by_width(record: StudyRecord, bottleneck: bool, name: str) -> Estimate | None:
    """By how much an error falls from the narrow network to the wide one."""
    narrow, wide = (
        error(cells_at(record, variant, chosen(record, variant) if bottleneck else None), name, bonferroni(4))
        for variant in ("autoaugment", "wide")
    )
    return None if narrow is None or wide is None else difference(narrow, wide)


def _left(record: StudyRecord, variant: str, name: str, level: float = 0.95) -> Estimate | None:
    return accuracy(record, variant, chosen(record, variant), name, level)


def _untried(claim: str) -> ClaimResult:
    return ClaimResult(
        claim=claim, verdict=Verdict.UNDECIDED, reason="Not all ways of training that it needs were tried."
    )


def _norm(name: str) -> str:
    return "ℓ∞" if name == "pgd_linf" else "ℓ2"
