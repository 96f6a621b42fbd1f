"""Does a bottleneck keep to the one robust feature where many weak ones together predict better?

The toy problem of Tsipras et al. 2019 (:class:`isthmus.data.toys.Gaussians`): x₁ is right in 95% and cannot be moved;
a hundred Gaussians together are right in 99.9%, and an attacker turns them all round.
"""

from __future__ import annotations

from collections.abc import Sequence

from isthmus.core.config import Positive
from isthmus.core.types import Figure, Mark, Section, Table
from isthmus.studies import catalogue
from isthmus.studies.closer_look import toys
from isthmus.studies.old.evidence import (
    ClaimResult,
    Estimate,
    Verdict,
    all_of,
    any_of,
    bonferroni,
    exceeds,
    falls_below,
    gap,
    points,
)
from isthmus.studies.old.study import StudyRecord, scales
from isthmus.studies.store import ResultStore, Stages

SETS = {"clean": "clean", "attacked": "under attack"}
MARGIN = 0.01
"""A gain in accuracy that counts."""


class Config(toys.ToyConfig):
    """The appendix's: as for figure 5, but a code of 25 numbers and 200 steps."""

    dim: Positive = 25
    steps: Positive = 200


SCALES = scales(Config, tiny={**toys.TINY, "steps": 40}, small={})


def cells(config: Config, bench: ResultStore) -> Stages:
    """Every classifier, trained and judged."""
    from isthmus.studies.closer_look import toy_models

    yield toy_models.cells(toy_models.gaussians(config.points), config, bench)


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's claims for each reading of σ: VIB is more robust, but in stochastic mode alone, and at a price."""
    claims = (_more_robust, _only_stochastic, _at_some_beta, _modes_part, _at_odds)
    return [claim(record, offset) for offset in toys.readings(record) for claim in claims]


def _gain(record: StudyRecord, vib: toys.Vib, mode: str, points: str) -> Estimate:
    """Accuracy beyond the deterministic classifier's; all β of a reading hold at once."""
    level = bonferroni(len(toys.grid(record, vib.offset)))
    ours, theirs = toys.right(record, vib, mode, points), toys.right(record, None, "mean", points)
    return gap(ours, theirs, record.config["points"], level)


def _best(record: StudyRecord, offset: float, mode: str) -> toys.Vib:
    """The most robust among those that did not collapse; of any where all did."""
    grid = toys.held(record, offset, mode) or toys.grid(record, offset)
    return max(grid, key=lambda vib: toys.estimate(record, vib, mode, "attacked").value)


def _more_robust(record: StudyRecord, offset: float) -> ClaimResult:
    grid, best = toys.held(record, offset, "stochastic"), _best(record, offset, "stochastic")
    return ClaimResult(
        claim=f"In stochastic mode VIB is more robust than the linear classifier ({toys.softplus(offset)}).",
        verdict=any_of([exceeds(_gain(record, vib, "stochastic", "attacked"), MARGIN) for vib in grid]),
        reason=f"Its best β = {best.beta:g} keeps {_gain(record, best, 'stochastic', 'attacked')} more under attack; "
        f"more than {points(MARGIN)} at some β counts.",
    )


def _only_stochastic(record: StudyRecord, offset: float) -> ClaimResult:
    grid, best = toys.held(record, offset, "mean"), _best(record, offset, "mean")
    gains = [_gain(record, vib, "mean", "attacked") for vib in grid]
    return ClaimResult(
        claim=f"In mean mode it is not, at any β ({toys.softplus(offset)}).",
        verdict=all_of([falls_below(gain, MARGIN) for gain in gains]),
        reason=f"Its best β = {best.beta:g} keeps {_gain(record, best, 'mean', 'attacked')} more under attack; less "
        f"than {points(MARGIN)} at every β counts.",
    )


def _at_some_beta(record: StudyRecord, offset: float) -> ClaimResult:
    """The weaker reading of the two claims above: the paper shows its figure and does not say at which β."""
    claim = f"At some β it is more robust in stochastic mode and not in mean mode ({toys.softplus(offset)})."
    in_both = set(toys.held(record, offset, "mean"))
    grid = [vib for vib in toys.held(record, offset, "stochastic") if vib in in_both]
    if not grid:
        return ClaimResult(claim=claim, verdict=Verdict.UNDECIDED, reason="Training collapsed at every β.")
    gains = {vib: [_gain(record, vib, mode, "attacked") for mode in ("stochastic", "mean")] for vib in grid}
    verdicts = {vib: all_of([exceeds(a, MARGIN), falls_below(b, MARGIN)]) for vib, (a, b) in gains.items()}
    seen = [vib for vib in grid if verdicts[vib] is Verdict.SUPPORTED]
    shown = max(seen or grid, key=lambda vib: gains[vib][0].value - gains[vib][1].value)
    stochastic, mean = gains[shown]
    where = f"It is seen at β = {_listed(seen)}. Of these, t" if seen else "T"
    return ClaimResult(
        claim=claim,
        verdict=any_of(list(verdicts.values())),
        reason=f"{where}he modes lie furthest apart at β = {shown.beta:g}: under attack VIB "
        f"keeps {stochastic} more in stochastic mode, {mean} more in mean mode; more than {points(MARGIN)} and less "
        "than that counts.",
    )


def _modes_part(record: StudyRecord, offset: float) -> ClaimResult:
    """What makes "only for the case of stochastic evaluation" odd, without a limit on what mean mode may gain."""
    claim = f"At some β it is more robust in stochastic mode than in mean mode ({toys.softplus(offset)})."
    grid = toys.held(record, offset, "stochastic")
    if not grid:
        return ClaimResult(claim=claim, verdict=Verdict.UNDECIDED, reason="Training collapsed at every β.")
    level = bonferroni(len(toys.grid(record, offset)))
    leads = {vib: _lead_of_stochastic(record, vib, level) for vib in grid}
    most = max(grid, key=lambda vib: leads[vib].value)
    ahead = [vib for vib in grid if exceeds(leads[vib], MARGIN) is Verdict.SUPPORTED]
    behind = [vib for vib in grid if falls_below(leads[vib], -MARGIN) is Verdict.SUPPORTED]
    also = f" At β = {_listed(behind)} mean mode is ahead instead, by more than that." if behind else ""
    return ClaimResult(
        claim=claim,
        verdict=any_of([exceeds(lead, MARGIN) for lead in leads.values()]),
        reason=f"At most by {leads[most]} under attack, at β = {most.beta:g}; more than {points(MARGIN)} at some β "
        f"counts, and is seen at {f'β = {_listed(ahead)}' if ahead else 'none'}.{also}",
    )


def _lead_of_stochastic(record: StudyRecord, vib: toys.Vib, level: float) -> Estimate:
    stochastic, mean = (toys.right(record, vib, mode, "attacked") for mode in ("stochastic", "mean"))
    return gap(stochastic, mean, record.config["points"], level)


def _listed(vibs: Sequence[toys.Vib]) -> str:
    return ", ".join(f"{vib.beta:g}" for vib in vibs)


def _at_odds(record: StudyRecord, offset: float) -> ClaimResult:
    claim = f"Clean and robust accuracy are at odds ({toys.softplus(offset)})."
    grid = toys.held(record, offset, "stochastic")
    robust = [vib for vib in grid if _gain(record, vib, "stochastic", "attacked").low > MARGIN]
    if not robust:
        return ClaimResult(claim=claim, verdict=Verdict.UNDECIDED, reason="No β is more robust, so there is no price.")
    prices = {vib: _gain(record, vib, "stochastic", "clean") for vib in robust}
    least = max(robust, key=lambda vib: prices[vib].value)
    return ClaimResult(
        claim=claim,
        verdict=all_of([falls_below(price, 0.0) for price in prices.values()]),
        reason=f"It is more robust in stochastic mode at β = {_listed(robust)}. The "
        f"price is least at {least.beta:g}: clean accuracy differs by {prices[least]} from the linear classifier's; "
        "below 0 at each counts.",
    )


def section(record: StudyRecord) -> Section:
    """Accuracy over β, clean and under attack, with the closed forms of the known rules."""
    marks = {
        "clean": (Mark("Bayes", y=0.99947), Mark("x₁ alone", y=0.95)),
        "attacked": (Mark("Bayes", y=0.00576), Mark("x₁ alone", y=0.95)),
    }
    titles = {"clean": "Clean points", "attacked": "Every Gaussian moved by 2η against the label"}
    blocks: tuple[Figure | Table, ...] = (*toys.figures(record, titles, marks), toys.closed_forms(record, SETS))
    return Section("Figure 7: a toy problem with one robust feature", catalogue.question(record.study), blocks)
