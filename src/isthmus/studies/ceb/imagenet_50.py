"""Do AutoAugment, width and CEB make a ResNet-50 on ImageNet more accurate, and robust to corruptions and attacks?

Table 1 and figure 4 of Fischer & Alemi 2020: deterministic networks and CEB at ρ = 1 to 10, trained in three ways.
"""

from __future__ import annotations

from typing import Literal

from isthmus.core.types import Section
from isthmus.studies.ceb import imagenet, imagenet_claims, imagenet_page
from isthmus.studies.old.evidence import ClaimResult
from isthmus.studies.old.study import StudyRecord, scales


class Config(imagenet.ImageNetConfig):
    """Table 1's: ResNet-50."""

    depth: Literal[50, 101, 152] = 50


SCALES = scales(Config, tiny=imagenet.TINY, small=imagenet.SMALL)
cells = imagenet.cells


def findings(record: StudyRecord) -> list[ClaimResult]:
    """CEB against its baselines, and that none of them stands PGD."""
    return [*imagenet_claims.shared(record), imagenet_claims.none_stands(record)]


def section(record: StudyRecord) -> Section:
    """Errors against ρ, and ours beside the printed columns."""
    return imagenet_page.section(record, "Table 1 and figure 4: ResNet-50 on ImageNet")
