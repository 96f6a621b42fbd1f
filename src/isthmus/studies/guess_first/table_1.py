"""How do CNN, VIB and four classifiers that guess first stand attacks on MNIST, and is what stands real?

Table 1 of Guess First: FGSM, PGD and C&W, black- and white-box. Beside it stand what a strong ensemble leaves and the
verdict of the obfuscation battery: the paper itself suspects its JS models of gradient masking. VIB is judged in mean
mode.

``small`` trains each model for 30 epochs, and asks 2,000 images of it: some 300 looks each by PGD (which is given fewer
bisections than Foolbox's), 400 by C&W, up to 1,000 forward passes by FGSM, and what the ensemble takes. A look costs a
core 0.3 to 0.4 ms, so the attacks on a model take about a quarter of an hour, and each of the three seeds between two
and three hours on two cores.
"""

from __future__ import annotations

from isthmus.core.types import Section
from isthmus.studies.guess_first import black_claims, protocol, strong_claims, tables_page, white_claims
from isthmus.studies.guess_first.protocol import TableConfig
from isthmus.studies.old.evidence import ClaimResult
from isthmus.studies.old.study import StudyRecord, scales
from isthmus.studies.store import ResultStore, Stages


class Config(TableConfig):
    """Table 1's."""


SCALES = scales(Config, tiny=protocol.TINY_TABLE, small=protocol.SMALL_TABLE)


def cells(config: Config, bench: ResultStore) -> Stages:
    """Every model, trained and attacked."""
    from isthmus.studies.guess_first import measuring

    return measuring.table(config, bench)


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's claims, and what the paper did not ask."""
    return [
        *black_claims.findings(record, gain=black_claims.MARGIN),
        *white_claims.findings(record),
        *strong_claims.findings(record),
    ]


def section(record: StudyRecord) -> Section:
    """The table beside the printed one, the ensemble, the verdicts."""
    return tables_page.section(record, "Table 1: classifiers that guess first, on MNIST")
