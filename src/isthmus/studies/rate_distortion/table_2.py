"""Which regularisers keep a network from memorising labels that say nothing of their images?

Table 2 of "A Rate-Distortion Theory of Adversarial Examples": the models of table 1 on labels drawn at random.
"""

from __future__ import annotations

from isthmus.core.types import Section
from isthmus.studies.old.evidence import ClaimResult
from isthmus.studies.old.study import StudyRecord, scales
from isthmus.studies.rate_distortion import protocol, table_claims, table_page, weight_decay
from isthmus.studies.store import ResultStore, Stages


class Config(protocol.MarginConfig):
    """Table 2's."""

    batch_sizes: tuple[int, ...] = (128, 32)


SCALES = scales(Config, tiny=protocol.TINY, small=protocol.SMALL)


def cells(config: Config, bench: ResultStore) -> Stages:
    """The choice of λ, then every model with every batch size."""
    from isthmus.studies.rate_distortion import measuring

    config = yield from weight_decay.chosen(config, bench)
    yield measuring.cells(config, bench, "random")


def findings(record: StudyRecord) -> list[ClaimResult]:
    """What the paper says of the table."""
    return table_claims.random(weight_decay.judged(record))


def section(record: StudyRecord) -> Section:
    """The table, and how λ was chosen."""
    found = table_page.section(weight_decay.judged(record), "Table 2: the same models on random labels", "random")
    return weight_decay.beside(found, record)
