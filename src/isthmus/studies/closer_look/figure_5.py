"""Does a bottleneck keep to the feature that always tells, or does it lean on the one that an attacker can turn?

The toy problem of section 3.3 (:class:`isthmus.data.toys.Intervals`): sign(x₁) is always right and needs ln 2 nats;
x₂ adds nothing and can be moved. The robust set holds only points whose x₂ lies on the wrong side (appendix); the
attack of the main text, x₂ moved by 1 against the label, is measured beside it.
"""

from __future__ import annotations

from isthmus.core.types import Figure, Mark, Section, Table
from isthmus.studies import catalogue
from isthmus.studies.closer_look import toys
from isthmus.studies.old.evidence import ClaimResult, Verdict, all_of, bonferroni, exceeds, points
from isthmus.studies.old.study import StudyRecord, scales
from isthmus.studies.store import ResultStore, Stages

SETS = {"clean": "clean", "rare": "rare points", "shifted": "x₂ moved by 1"}
MARGIN = 0.01
"""A loss of accuracy on the rare points that counts as leaning on x₂."""


class Config(toys.ToyConfig):
    """The appendix's: 1000 steps of 1024 points, a code of 2 numbers."""


SCALES = scales(Config, tiny={**toys.TINY, "steps": 60}, small={})


def cells(config: Config, bench: ResultStore) -> Stages:
    """Every classifier, trained and judged."""
    from isthmus.studies.closer_look import toy_models

    yield toy_models.cells(toy_models.intervals(config.points), config, bench)


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's claim for each reading of σ: VIB does not focus on x₁ alone, and so it can be attacked through x₂."""
    return [_prone(record, offset, mode) for offset in toys.readings(record) for mode in toys.MODES]


def _prone(record: StudyRecord, offset: float, mode: str) -> ClaimResult:
    claim = f"VIB does not keep to x₁ alone and is prone to an attack on x₂ ({mode} mode, {toys.softplus(offset)})."
    grid, held = toys.grid(record, offset), toys.held(record, offset, mode)
    if not held:
        return ClaimResult(claim=claim, verdict=Verdict.UNDECIDED, reason="Training collapsed at every β.")
    costs = {vib: toys.cost(record, vib, mode, "rare", bonferroni(len(grid))) for vib in held}
    least, most = (pick(held, key=lambda vib: costs[vib].value) for pick in (min, max))
    reason = (
        f"Rare points cost accuracy: least at β = {least.beta:g}, {costs[least]}; most at β = {most.beta:g}, "
        f"{costs[most]}. More than {points(MARGIN)} at each of the {len(held)} values of β that did not collapse (of "
        f"{len(grid)}) is seen. The optimum would lose nothing."
    )
    return ClaimResult(claim=claim, verdict=all_of([exceeds(cost, MARGIN) for cost in costs.values()]), reason=reason)


def section(record: StudyRecord) -> Section:
    """Accuracy over β on all three sets, with the closed forms of sign(x₁) and sign(x₂)."""
    optimum = Mark("sign(x₁), the optimum", y=1.0)  # sign(x₂) alone would be right in none of the last two sets
    marks = {"clean": (optimum, Mark("sign(x₂)", y=0.9)), "rare": (optimum,), "shifted": (optimum,)}
    titles = {"clean": "Clean points", "rare": "Rare points alone", "shifted": "x₂ moved by 1 against the label"}
    blocks: tuple[Figure | Table, ...] = (*toys.figures(record, titles, marks), toys.closed_forms(record, SETS))
    return Section("Figure 5: a toy problem with one feature to trust", catalogue.question(record.study), blocks)
