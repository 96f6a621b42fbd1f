"""How does accuracy fall with the size of the perturbation, black- and white-box, for classifiers that guess first?

Figure 3 of Guess First: six models on MNIST under FGSM, PGD and C&W. The models and measurements are table 1's; with
``data=fashion_mnist`` they are table 2's.
"""

from __future__ import annotations

from isthmus.core.types import Figure, Section
from isthmus.studies import catalogue
from isthmus.studies.guess_first import black_claims, curves, protocol, white_claims
from isthmus.studies.guess_first.printed import LINF, Row
from isthmus.studies.guess_first.protocol import CurvesConfig
from isthmus.studies.guess_first.readings import ATTACKS, models
from isthmus.studies.old.evidence import ClaimResult
from isthmus.studies.old.study import StudyRecord, scales
from isthmus.studies.store import ResultStore, Stages


class Config(CurvesConfig):
    """Figure 3's."""


SCALES = scales(Config, tiny=protocol.TINY_CURVES, small=protocol.SMALL_CURVES)


def cells(config: Config, bench: ResultStore) -> Stages:
    """Every model, trained and attacked."""
    from isthmus.studies.guess_first import measuring

    return measuring.curves(config, bench)


def findings(record: StudyRecord) -> list[ClaimResult]:
    """That the proposed models stay ahead as perturbations grow; and the claims about white-box attacks."""
    return [*(each for attack in ATTACKS for each in _ahead(record, attack)), *white_claims.findings(record)]


def _ahead(record: StudyRecord, attack: str) -> list[ClaimResult]:
    """Up to the tables' sizes: beyond them, nothing may be left of any model."""
    grid, last = (record.config["l2"], 2.0) if attack == "cw" else (record.config["linf"], LINF[-1])
    rows = [Row("black", attack, eps) for eps in grid if eps <= last]
    claim = (
        f"Under black-box {ATTACKS[attack]} the four proposed models precede the CNN at every size up to "
        f"{'ℓ2' if attack == 'cw' else 'ℓ∞'} {last:g}."
    )
    return black_claims.leads(record, claim, rows, [(name, "CNN") for name in protocol.PROPOSED])


def section(record: StudyRecord) -> Section:
    """Six panels: three attacks, black- and white-box, with what the table prints as points."""
    panels: tuple[Figure, ...] = ()
    if models(record):
        panels = tuple(
            curves.panel(record, box, attack, curves.printed_points) for attack in ATTACKS for box in ("black", "white")
        )
    return Section("Figure 3: accuracy against perturbation size", catalogue.question(record.study), panels)
