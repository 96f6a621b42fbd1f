"""What Fischer 2020 says of detection (section 3.1.3, table 1), each claim judged by the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.studies.ceb.printed_detection import CEB_0, DETERM, IMPOSSIBLE, OUTS, VIB_0, VIB_4, Model
from isthmus.studies.ceb.sweeps import cells_at, named
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
    pooled,
    share,
)
from isthmus.studies.old.study import StudyRecord

Gaps = dict[str, Estimate]
SATURATED = 0.01
"""At most this false positive rate is "saturated"; printed are 0.0% and 0.1%."""


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's claims, and what its table allows."""
    return [
        *(_better(record, model) for model in (CEB_0, VIB_4)),
        *(_saturates(record, model) for model in (CEB_0, VIB_4)),
        _below_the_mni(record),
        *(_rate_beats_entropy(record, model) for model in (CEB_0, VIB_4, VIB_0)),
        _harder_to_attack(record),
        table_is_possible(),
    ]


def outs(record: StudyRecord) -> list[str]:
    """The out-distributions that are measured, the paper's first and in its order."""
    found = list(dict.fromkeys(cell["out"] for cell in record.cells.values()))
    return [out for out in OUTS if out in found] + [out for out in found if out not in OUTS]


def spoken(out: str) -> str:
    """An out-distribution as a reader wants it."""
    return OUTS.get(out, out.replace("_", " "))


def scored(record: StudyRecord, model: Model, out: str) -> list[Mapping[str, Any]]:
    """Cells of a model on an out-distribution, seed by seed, without collapsed runs."""
    return [cell for cell in cells_at(record, *model) if cell["out"] == out]


def measured(
    record: StudyRecord, model: Model, out: str, score: str, metric: str, level: float = 0.95
) -> Estimate | None:
    """Mean over seeds of a detection metric; None where it was not measured."""
    cells = [cell for cell in scored(record, model, out) if metric in cell["scores"].get(score, {})]
    if not cells:
        return None
    n = cells[0]["outside"] + (0 if metric == "fpr95_in" else cells[0]["n"])
    return pooled([tuple(cell["scores"][score][metric]) for cell in cells], n, level)


def success(record: StudyRecord, model: Model, out: str) -> Estimate | None:
    """Mean over seeds of the attack's success, of images that were right before; None where there was no attack."""
    found = [cell["success"] for cell in scored(record, model, out) if cell["success"]]
    if not found:
        return None
    n = round(sum(tried for _, tried in found) / len(found))  # differs a little between seeds
    return share([min(n, round(n * won / tried)) for won, tried in found], n)


def _gaps(record: StudyRecord, one: tuple[Model, str], other: tuple[Model, str], where: Sequence[str]) -> Gaps:
    """By how much the AUROC of one model's score exceeds that of another's, on each out-distribution that has both.

    All intervals hold at once with 95%.
    """
    gaps, level = {}, bonferroni(len(where))
    for out in where:
        first, second = (measured(record, model, out, score, "auroc", level) for model, score in (one, other))
        if first is not None and second is not None:
            gaps[out] = difference(first, second)
    return gaps


def _said(gaps: Gaps) -> str:
    if not gaps:
        return "Not measured."
    least = min(gaps, key=lambda out: gaps[out].value)
    each = ", ".join(f"{spoken(out)} {_signed(gap)}" for out, gap in gaps.items())
    return (
        f"AUROC differs by {each}; least on {spoken(least)}, by {gaps[least]}; above 0 at each counts (corrected for "
        f"{len(gaps)})."
    )


def _signed(gap: Estimate) -> str:
    return f"{100 * gap.value:+.1f} points".replace("-", "−")


def _better(record: StudyRecord, model: Model) -> ClaimResult:
    gaps = _gaps(record, (model, "rate"), (DETERM, "entropy"), outs(record))
    return ClaimResult(
        claim=f"The rate of {named(*model)} detects every kind of foreign image better than the entropy of a "
        "deterministic network.",
        verdict=all_of([exceeds(gap, 0.0) for gap in gaps.values()]),
        reason=_said(gaps),
    )


def _saturates(record: StudyRecord, model: Model) -> ClaimResult:
    level = bonferroni(len(outs(record)))
    found = {out: measured(record, model, out, "rate", "fpr95_in", level) for out in outs(record)}
    rates = {out: rate for out, rate in found.items() if rate is not None}
    each = ", ".join(f"{spoken(out)} {percent(rate.value)}" for out, rate in rates.items())
    return ClaimResult(
        claim=f"The rate of {named(*model)} saturates detection: next to no foreign image passes where 95% of the test "
        "images do.",
        verdict=all_of([falls_below(rate, SATURATED) for rate in rates.values()]),
        reason=f"These pass: {each}; below {percent(SATURATED)} of each counts." if rates else "Not measured.",
    )


def _below_the_mni(record: StudyRecord) -> ClaimResult:
    others = [out for out in outs(record) if out != "cw"]  # on which it is printed as better
    gaps = _gaps(record, (DETERM, "entropy"), (VIB_0, "rate"), others)
    return ClaimResult(
        claim="A rate alone does not make detection good: that of VIB, ρ = 0, tells noise, MNIST and vertical flips "
        "worse than the entropy of a deterministic network.",
        verdict=all_of([exceeds(gap, 0.0) for gap in gaps.values()]),
        reason=_said(gaps),
    )


def _rate_beats_entropy(record: StudyRecord, model: Model) -> ClaimResult:
    gaps = _gaps(record, (model, "rate"), (model, "entropy"), outs(record))
    return ClaimResult(
        claim=f"The entropy of {named(*model)} is always inferior to its rate.",
        verdict=all_of([exceeds(gap, 0.0) for gap in gaps.values()]),
        reason=_said(gaps),
    )


def _harder_to_attack(record: StudyRecord) -> ClaimResult:
    plain, tight = (success(record, model, "cw") for model in (DETERM, CEB_0))
    if plain is None or tight is None:
        return ClaimResult(
            claim="C&W succeeds on fewer images of CEB, ρ = 0.", verdict=Verdict.UNDECIDED, reason="Not measured."
        )
    return ClaimResult(
        claim="C&W succeeds on fewer images of CEB, ρ = 0, than of the deterministic network.",
        verdict=exceeds(difference(plain, tight), 0.0),
        reason=f"It succeeds on {tight}, and of the deterministic network on {plain}; printed are 35.8% and 100%.",
    )


def table_is_possible() -> ClaimResult:
    """Whether the printed numbers agree with one another; no measurement of ours is in it."""
    each = "; ".join(
        f"{named(*row.model)} on {spoken(row.out)}: AUROC {percent(row.auroc)}, at least {percent(row.least_auroc)}"
        for row in IMPOSSIBLE
    )
    return ClaimResult(
        claim="The printed table can be: each false positive rate goes with its AUROC.",
        verdict=Verdict.CONTRADICTED,
        reason=f"AUROC is at least 0.95 · (1 − FPR at 95% TPR), which {len(IMPOSSIBLE)} rows break. {each}.",
    )
