"""Does a bottleneck keep to the one robust feature where many weak ones together predict better?

The toy problem of Tsipras et al. 2019 (:class:`isthmus.data.toys.Gaussians`): x₁ is right in 95% and cannot be moved;
a hundred Gaussians together are right in 99.9%, and an attacker turns them all round.
"""

from __future__ import annotations

from isthmus.recipe import Positive
from isthmus.studies import catalogue
from isthmus.studies.closer_look import toys
from isthmus.studies.evidence import (
    Estimate,
    Finding,
    Verdict,
    all_of,
    any_of,
    bonferroni,
    exceeds,
    falls_below,
    gap,
    points,
)
from isthmus.studies.study import StudyRecord, scales
from isthmus.studies.workbench import Stages, Workbench
from isthmus.types import Figure, Mark, Section, Table

SETS = {"clean": "clean", "attacked": "under attack"}
MARGIN = 0.01
"""A gain in accuracy that counts."""


class Config(toys.ToyConfig):
    """The appendix's: as for figure 5, but a code of 25 numbers and 200 steps."""

    dim: Positive = 25
    steps: Positive = 200


SCALES = scales(Config, tiny={**toys.TINY, "steps": 40}, small={})


def cells(config: Config, bench: Workbench) -> Stages:
    """Every classifier, trained and judged."""
    from isthmus.studies.closer_look import toy_models

    yield toy_models.cells(toy_models.gaussians(config.points), config, bench)


def findings(record: StudyRecord) -> list[Finding]:
    """The paper's claims: VIB is more robust, but in stochastic mode alone, and at the price of clean accuracy."""
    return [_more_robust(record), _only_stochastic(record), _at_odds(record)]


def _gain(record: StudyRecord, beta: float, mode: str, points: str) -> Estimate:
    """Accuracy beyond the deterministic classifier's."""
    level = bonferroni(len(toys.betas(record)))
    ours, theirs = toys.right(record, beta, mode, points), toys.right(record, None, "mean", points)
    return gap(ours, theirs, record.config["points"], level)


def _best(record: StudyRecord, mode: str) -> float:
    """The β that is most robust among those that did not collapse; any where all did."""
    grid = toys.held(record, mode) or toys.betas(record)
    return max(grid, key=lambda beta: toys.estimate(record, beta, mode, "attacked").value)


def _more_robust(record: StudyRecord) -> Finding:
    grid, best = toys.held(record, "stochastic"), _best(record, "stochastic")
    return Finding(
        claim="In stochastic mode VIB is more robust than the linear classifier.",
        verdict=any_of([exceeds(_gain(record, beta, "stochastic", "attacked"), MARGIN) for beta in grid]),
        because=f"Its best β = {best:g} keeps {_gain(record, best, 'stochastic', 'attacked')} more under attack; more "
        f"than {points(MARGIN)} at some β counts.",
    )


def _only_stochastic(record: StudyRecord) -> Finding:
    grid, best = toys.held(record, "mean"), _best(record, "mean")
    gains = [_gain(record, beta, "mean", "attacked") for beta in grid]
    return Finding(
        claim="In mean mode it is not.",
        verdict=all_of([falls_below(gain, MARGIN) for gain in gains]),
        because=f"Its best β = {best:g} keeps {_gain(record, best, 'mean', 'attacked')} more under attack; less than "
        f"{points(MARGIN)} at every β counts.",
    )


def _at_odds(record: StudyRecord) -> Finding:
    claim = "Clean and robust accuracy are at odds."
    robust = [b for b in toys.held(record, "stochastic") if _gain(record, b, "stochastic", "attacked").low > MARGIN]
    if not robust:
        return Finding(claim=claim, verdict=Verdict.UNDECIDED, because="No β is more robust, so there is no price.")
    prices = {beta: _gain(record, beta, "stochastic", "clean") for beta in robust}
    least = max(robust, key=lambda beta: prices[beta].value)
    return Finding(
        claim=claim,
        verdict=all_of([falls_below(price, 0.0) for price in prices.values()]),
        because=f"It is more robust in stochastic mode at β = {', '.join(f'{beta:g}' for beta in robust)}. The "
        f"price is least at {least:g}: clean accuracy differs by {prices[least]} from the linear classifier's; below 0 "
        "at each counts.",
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
