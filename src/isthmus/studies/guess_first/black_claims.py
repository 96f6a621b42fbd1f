"""What the paper says of clean accuracy and black-box attacks, each claim judged by the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from isthmus.studies.guess_first.printed import CLEAN, L2, LINF, Row
from isthmus.studies.guess_first.protocol import PROPOSED
from isthmus.studies.guess_first.readings import about_training, called, lead, numbers
from isthmus.studies.old.evidence import ClaimResult, Estimate, Verdict, all_of, bonferroni, exceeds, points
from isthmus.studies.old.study import StudyRecord

LOSS = 0.01
"""A loss of clean accuracy up to which there is none."""
MARGIN = 0.1
"""A lead over the CNN under black-box FGSM at ε = 0.15, and what the elimination adds at 0.30 on MNIST."""
NEAR, FAR = LINF
FGSM = tuple(Row("black", "fgsm", eps) for eps in LINF)
PGD = tuple(Row("black", "pgd", eps) for eps in LINF)
CW = tuple(Row("black", "cw", eps) for eps in L2)
TWINS = (("C-DV-IE", "C-DV"), ("C-JS-IE", "C-JS"))
"""With and without information elimination."""
OBJECTIVES = (("C-DV", "C-JS"), ("C-DV-IE", "C-JS-IE"))
Pairs = Iterable[tuple[str, str]]


def findings(record: StudyRecord, gain: float | None) -> list[ClaimResult]:
    """The claims of section 3.1, in its order.

    Args:
        gain: by how much the paper says that the elimination helps under FGSM at ε = 0.30; None where it does not say.
    """
    cnn, vib = ([(name, other) for name in PROPOSED] for other in ("CNN", "VIB"))
    return [
        *leads(
            record, "None of the four proposed models loses natural accuracy against the CNN.", (CLEAN,), cnn, -LOSS
        ),
        *leads(
            record,
            "Under black-box FGSM at ε = 0.15 each of the four stands at least 10 points better than the CNN.",
            FGSM[:1],
            cnn,
            MARGIN,
        ),
        *leads(record, "Each stands black-box PGD better than the CNN, at ε = 0.15 and at 0.30.", PGD, cnn),
        *leads(record, "Each stands black-box C&W better than the CNN.", CW, cnn),
        *leads(record, "Each stands all black-box attacks better than VIB.", (*FGSM, *PGD, *CW), vib),
        *leads(record, "Information elimination helps under black-box FGSM at ε = 0.30.", FGSM[1:], TWINS),
        *(_by_more(record, gain) if gain is not None else ()),
        *leads(
            record,
            "Donsker-Varadhan stands black-box attacks better than its JS twin at ε = 0.30 and under C&W.",
            (FGSM[1], PGD[1], *CW),
            OBJECTIVES,
        ),
    ]


def _by_more(record: StudyRecord, gain: float) -> list[ClaimResult]:
    claim = f"There the elimination adds more than {points(gain)}."
    return leads(record, claim, FGSM[1:], TWINS, gain)


def leads(record: StudyRecord, claim: str, rows: Sequence[Row], pairs: Pairs, limit: float = 0.0) -> list[ClaimResult]:
    """Whether the first of each pair stands better than the second by more than a limit, in each of some rows.

    The intervals of all comparisons hold at once (Bonferroni).
    """
    pairs = list(pairs)

    def judge(least_seeds: int) -> tuple[Verdict, str]:
        level = bonferroni(len(rows) * len(pairs))
        found = {(row, pair): lead(record, row, *pair, level) for row in rows for pair in pairs}
        row, pair = min(found, key=lambda key: found[key].value)
        names = sorted({name for pair in pairs for name in pair}, key=record.config["models"].index)
        verdict = all_of([exceeds(estimate, limit, least_seeds) for estimate in found.values()])
        said = f"At least so for {pair[0]} against {pair[1]} on {called(row)}: {_signed(found[row, pair])}"
        ahead = sum(estimate.value > limit for estimate in found.values())
        many = f"; ahead by that in {ahead} of {len(found)} comparisons" if len(found) > 1 else ""
        values = "; ".join(f"{called(each)}: {numbers(record, each, names)}" for each in rows)
        return verdict, f"{said}{many}. More than {points(limit)} {'in each ' * (len(found) > 1)}counts. {values}."

    return about_training(claim, judge)


def _signed(estimate: Estimate) -> str:
    return f"{'+' * (estimate.value > 0)}{estimate}"
