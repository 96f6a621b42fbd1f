"""What the paper did not ask of its tables: the verdict of the obfuscation battery, and what a strong ensemble leaves.

Findings of the battery, and that nothing is left, are about the very models that were measured, so that one seed may
decide them.
"""

from __future__ import annotations

from collections.abc import Sequence

from isthmus.studies.guess_first.printed import LINF
from isthmus.studies.guess_first.protocol import PROPOSED, SIGMOID
from isthmus.studies.guess_first.readings import (
    NotMeasured,
    about_training,
    cells,
    doubted,
    failed_tests,
    left,
    settled,
    tested,
)
from isthmus.studies.guess_first.white_claims import CW, DV, JS
from isthmus.studies.old.evidence import (
    ClaimResult,
    Verdict,
    all_of,
    bonferroni,
    exceeds,
    falls_below,
    gap,
    percent,
    share,
)
from isthmus.studies.old.study import StudyRecord


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The verdict on the JS and on the Donsker-Varadhan models, and the ensemble at the tables' ℓ∞ sizes."""
    return [
        _battery(
            record, JS, f"Ours: the verdict check doubts every C-JS and C-JS-IE measured, at ℓ∞ {LINF[0]:g}.", True
        ),
        *(
            [_battery(record, SIGMOID, "Ours: it doubts them where they answer through a sigmoid.", True)]
            if set(SIGMOID) <= set(record.config["models"])
            else []
        ),
        _battery(record, DV, "Ours: it doubts no C-DV and no C-DV-IE measured.", False),
        *_some_left(record),
        _nothing_left(record),
    ]


def _battery(record: StudyRecord, names: Sequence[str], claim: str, expected: bool) -> ClaimResult:
    def judge() -> tuple[Verdict, str]:
        found = {(name, seed): cell for name in names for seed, cell in cells(record, "verdict", name).items()}
        if missing := [name for name in names if name not in {name for name, _ in found}]:
            raise NotMeasured(f"no verdict on a run of {missing[0]} that did not collapse")
        as_claimed = [doubted(cell) == expected for cell in found.values()]
        said = [
            f"{name}, seed {seed}: {cell['verdict']}, {percent(cell['reported'] / cell['n'])} reported and "
            f"{percent(cell['corrected'] / cell['n'])} left of {cell['n']:,}, {_tests(failed_tests(cell))}"
            for (name, seed), cell in found.items()
        ]
        verdict = Verdict.SUPPORTED if all(as_claimed) else Verdict.CONTRADICTED
        return verdict, f"{'; '.join(said)}. A verdict other than “holds”, or a failed test, is a doubt."

    return settled(claim, judge)


def _tests(failed: Sequence[str]) -> str:
    return f"failed: {', '.join(test.replace('_', ' ') for test in failed)}" if failed else "no test failed"


def _some_left(record: StudyRecord) -> list[ClaimResult]:
    eps = LINF[0]
    claim = f"Ours: at ℓ∞ {eps:g} a strong ensemble leaves more of each of the four than of the CNN."

    def judge(least_seeds: int) -> tuple[Verdict, str]:
        level = bonferroni(len(PROPOSED))
        n, plain = tested(record, CW), left(record, "linf", eps, "CNN")
        gains = {}
        for name in PROPOSED:
            ours = left(record, "linf", eps, name)
            seeds = sorted(set(ours) & set(plain))
            if not seeds:
                raise NotMeasured(f"there is no seed with a run of both {name} and CNN that did not collapse")
            gains[name] = gap([ours[seed] for seed in seeds], [plain[seed] for seed in seeds], n, level)
        said = [f"{name} {share(list(left(record, 'linf', eps, name).values()), n)}" for name in ("CNN", *PROPOSED)]
        least = min(gains, key=lambda name: gains[name].value)
        verdict = all_of([exceeds(gain, 0.0, least_seeds) for gain in gains.values()])
        return verdict, f"Least for {least}, {gains[least]} more; above 0 for each counts. {'; '.join(said)}."

    return about_training(claim, judge)


def _nothing_left(record: StudyRecord) -> ClaimResult:
    eps = LINF[1]
    claim = f"Ours: at ℓ∞ {eps:g} it leaves no more than chance of any of the four measured."

    def judge() -> tuple[Verdict, str]:
        found = [(name, seed) for name in PROPOSED for seed in cells(record, "ensemble", name)]
        if not found:
            raise NotMeasured("no run of the four that did not collapse")
        chance = next(iter(cells(record, "ensemble", found[0][0]).values()))["chance"]
        level, n = bonferroni(len(found)), tested(record, CW)
        each = {model: share([left(record, "linf", eps, model[0])[model[1]]], n, level) for model in found}
        verdict = all_of([falls_below(estimate, chance, least_seeds=1) for estimate in each.values()])
        most = max(each, key=lambda model: each[model].value)
        return verdict, (
            f"Most is left of {most[0]}, seed {most[1]}: {each[most]}; less than {percent(chance)} of each of "
            f"{len(each)} models counts (corrected for their number)."
        )

    return settled(claim, judge)
