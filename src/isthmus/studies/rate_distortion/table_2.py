"""Which regularisers keep a network from memorising labels that say nothing of their images?

Table 2 of "A Rate-Distortion Theory of Adversarial Examples": the models of table 1 on labels drawn at random.
"""

from __future__ import annotations

from isthmus.studies.evidence import Finding
from isthmus.studies.rate_distortion import protocol, table_claims, table_page
from isthmus.studies.study import StudyRecord, scales
from isthmus.studies.workbench import Stages, Workbench
from isthmus.types import Section


class Config(protocol.MarginConfig):
    """Table 2's."""

    batch_sizes: tuple[int, ...] = (128, 32)


SCALES = scales(Config, tiny=protocol.TINY, small=protocol.SMALL)


def cells(config: Config, bench: Workbench) -> Stages:
    """Every model with every batch size."""
    from isthmus.studies.rate_distortion import measuring

    yield measuring.cells(config, bench, "random")


def findings(record: StudyRecord) -> list[Finding]:
    """What the paper says of the table."""
    return table_claims.random(record)


def section(record: StudyRecord) -> Section:
    """The table."""
    return table_page.section(record, "Table 2: the same models on random labels", "random")
