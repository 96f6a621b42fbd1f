"""How do weight decay, batch normalisation and batch size change test accuracy and the generalisation gap?

Table 1 of "A Rate-Distortion Theory of Adversarial Examples": a CNN of 180,906 parameters on whitened grey images of
SVHN, trained by plain SGD for 500 epochs. ``small`` trains on 2,000 images of CIFAR-10 instead: what it says is about
those.
"""

from __future__ import annotations

from isthmus.core.types import Section
from isthmus.studies.old.evidence import ClaimResult
from isthmus.studies.old.study import StudyRecord, scales
from isthmus.studies.rate_distortion import protocol, table_claims, table_page, weight_decay
from isthmus.studies.store import ResultStore, Stages


class Config(protocol.MarginConfig):
    """Table 1's."""


SCALES = scales(Config, tiny=protocol.TINY, small=protocol.SMALL)


def cells(config: Config, bench: ResultStore) -> Stages:
    """The choice of λ, then every model with every batch size."""
    from isthmus.studies.rate_distortion import measuring

    config = yield from weight_decay.chosen(config, bench)
    yield measuring.cells(config, bench, "original")


def findings(record: StudyRecord) -> list[ClaimResult]:
    """What the paper says of the table."""
    return table_claims.original(weight_decay.judged(record))


def section(record: StudyRecord) -> Section:
    """The table, and how λ was chosen."""
    found = table_page.section(
        weight_decay.judged(record), "Table 1: regularisers and the generalisation gap", "original"
    )
    return weight_decay.beside(found, record)
