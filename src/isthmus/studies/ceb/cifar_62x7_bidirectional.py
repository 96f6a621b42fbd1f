"""Are large Wide ResNets that bidirectional CEB trained on CIFAR-10 at ρ = 0 accurate, robust and general beside ρ = 5?

Figure 6 and section 3.1.6 of Fischer 2020: bidirectional CatGen CEB, of which only e(z|x) and b(z|y) have parameters,
judged by the consistent classifier; PGD of 7 steps; of three runs at each ρ the most accurate on the test set is shown.
That selects on the test set. Fischer & Alemi 2020 train the same networks with a classifier: ``ceb/cifar-62x7``.
"""

from __future__ import annotations

from typing import Any

from isthmus.core.config import Positive
from isthmus.studies.ceb import cifar, cifar_62x7, cifar_62x7_claims, cifar_62x7_page
from isthmus.studies.old.image_models import Kind
from isthmus.studies.old.study import scales

MODEL: dict[str, Any] = {**cifar_62x7.MODEL, "classifier": "consistent"}


class Config(cifar_62x7.Config):
    """As ``ceb/cifar-62x7`` but for the objective, the classifier and the attack's steps; no CIFAR-10-C."""

    model: dict[str, Any] = MODEL
    families: tuple[Kind, ...] = ("bidirectional",)
    steps: Positive = 7
    shifts: tuple[str | dict[str, Any], ...] = cifar.CIFAR10_1


SCALES = scales(
    Config,
    tiny={**cifar_62x7.TINY, "model": {**cifar_62x7.TINY["model"], "classifier": "consistent"}},
    small={
        **cifar_62x7.SMALL,
        "model": {**cifar_62x7.SMALL["model"], "classifier": "consistent"},
        "shifts": cifar.CIFAR10_1,
    },
)
cells, findings, section = cifar.cells, cifar_62x7_claims.findings, cifar_62x7_page.section
