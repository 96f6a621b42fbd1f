"""How do CNN, VIB and four classifiers that guess first stand attacks on Fashion-MNIST, and is what stands real?

Table 2 of Guess First: as table 1, on other images.
"""

from __future__ import annotations

from isthmus.core.types import Section
from isthmus.studies.guess_first import black_claims, protocol, strong_claims, tables_page, white_claims
from isthmus.studies.guess_first.protocol import TableConfig
from isthmus.studies.old.evidence import ClaimResult
from isthmus.studies.old.study import StudyRecord, scales
from isthmus.studies.store import ResultStore, Stages


class Config(TableConfig):
    """Table 2's."""

    data: str = "fashion_mnist"


SCALES = scales(Config, tiny=protocol.TINY_TABLE, small=protocol.SMALL_TABLE)


def cells(config: Config, bench: ResultStore) -> Stages:
    """Every model, trained and attacked."""
    from isthmus.studies.guess_first import measuring

    return measuring.table(config, bench)


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's claims, whose tendency it sees here too, and what the paper did not ask."""
    return [
        *black_claims.findings(record, gain=None),
        *white_claims.findings(record),
        *strong_claims.findings(record),
    ]


def section(record: StudyRecord) -> Section:
    """The table beside the printed one, the ensemble, the verdicts."""
    return tables_page.section(record, "Table 2: classifiers that guess first, on Fashion-MNIST")
