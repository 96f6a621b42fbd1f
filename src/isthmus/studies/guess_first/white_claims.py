"""What the paper says of white-box attacks, and the signature of gradient masking in it."""

from __future__ import annotations

from isthmus.studies.guess_first.black_claims import OBJECTIVES, leads
from isthmus.studies.guess_first.printed import L2, LINF, Row
from isthmus.studies.guess_first.protocol import SIGMOID
from isthmus.studies.guess_first.readings import NotMeasured, about_training, accuracy, cells, counts, tested
from isthmus.studies.old.evidence import (
    ClaimResult,
    Estimate,
    Verdict,
    all_of,
    exceeds,
    falls_below,
    gap,
    percent,
    points,
    share,
)
from isthmus.studies.old.study import StudyRecord

FLAT = 0.1
"""A fall of FGSM's curve from ε = 0.15 to 0.30 up to which it is flat."""
FALL = 0.05
"""A fall of PGD's there from which on it falls."""
BROKEN = 0.2
"""What C&W leaves at most where it breaks a model."""
MOST = 0.7
""""About 80%" of images that FGSM never breaks: from here on."""
JS = ("C-JS", "C-JS-IE")
DV = ("C-DV", "C-DV-IE")
LINF_ROWS = tuple(Row("white", attack, eps) for attack in ("fgsm", "pgd") for eps in LINF)
CW = Row("white", "cw", L2[0])


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The claims of section 3.1 about white-box attacks."""
    others = [name for name in record.config["models"] if name not in (*JS, *SIGMOID)]
    asked = [name for name in (*JS, *SIGMOID) if name in JS or name in record.config["models"]]
    return [
        *leads(
            record,
            "The JS models surpass all others under white-box FGSM and PGD.",
            LINF_ROWS,
            [(ours, other) for ours in JS for other in others],
        ),
        *(each for name in asked for each in _rarely_misled(record, name)),
        *leads(
            record,
            "The Donsker-Varadhan models stand every white-box attack better than the CNN.",
            (*LINF_ROWS, CW),
            [(name, "CNN") for name in DV],
        ),
        *leads(record, "Under white-box C&W Donsker-Varadhan stands better than its JS twin.", (CW,), OBJECTIVES),
        *(each for name in asked for each in _masked(record, name)),
    ]


def _rarely_misled(record: StudyRecord, name: str) -> list[ClaimResult]:
    claim = f"About 80% of FGSM attacks fail to mislead {name} at any size."

    def judge(least_seeds: int) -> tuple[Verdict, str]:
        found = cells(record, "white-box", name)
        if not found:
            raise NotMeasured(f"no run of {name} that did not collapse")
        never = share([cell["attacks"]["fgsm"]["never"] for cell in found.values()], next(iter(found.values()))["n"])
        return exceeds(
            never, MOST, least_seeds
        ), f"No step up to ε = 1 breaks {never}; more than {percent(MOST)} counts."

    return about_training(claim, judge)


def _masked(record: StudyRecord, name: str) -> list[ClaimResult]:
    """FGSM's curve is flat where PGD's falls, and C&W breaks what neither did: one step goes astray."""
    claim = f"{name} shows gradient masking: white-box FGSM is flat in ε, PGD falls, and C&W breaks it."

    def judge(least_seeds: int) -> tuple[Verdict, str]:
        (near, far), (pgd_near, pgd_far) = LINF_ROWS[:2], LINF_ROWS[2:]
        fgsm, pgd = (_fall(record, name, *pair) for pair in ((near, far), (pgd_near, pgd_far)))
        broken = accuracy(record, CW, name)
        assert broken is not None  # of the same cells
        verdict = all_of(
            [
                falls_below(fgsm, FLAT, least_seeds),
                exceeds(pgd, FALL, least_seeds),
                falls_below(broken, BROKEN, least_seeds),
            ]
        )
        return verdict, (
            f"From ε = {near.eps:g} to {far.eps:g} FGSM takes {fgsm} more (less than {points(FLAT)} counts), PGD {pgd} "
            f"(more than {points(FALL)}); C&W leaves {broken} at ℓ2 {CW.eps:g} (less than {percent(BROKEN)})."
        )

    return about_training(claim, judge)


def _fall(record: StudyRecord, name: str, near: Row, far: Row) -> Estimate:
    at = [counts(record, row, name) for row in (near, far)]
    if not at[0]:
        raise NotMeasured(f"no run of {name} that did not collapse")
    return gap(list(at[0].values()), list(at[1].values()), tested(record, near))
