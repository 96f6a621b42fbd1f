"""What does the information elimination do to the representations under a label hypothesis?

Figure 2 of Guess First shows it for the hypothesis "1" on MNIST. Here, with and without elimination: MMD² between
images of the hypothesis's class and the rest, what a linear probe still tells of the true label, and the
representations on their two principal components. Beside them stands the Fisher information of the prediction about the
image, by which appendix D explains why compression should help against small perturbations. The models are those of
table 1.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from isthmus.core.recipe import Positive
from isthmus.core.types import Section
from isthmus.studies import catalogue
from isthmus.studies.guess_first import elimination_claims, elimination_page, protocol
from isthmus.studies.guess_first.protocol import ModelsConfig
from isthmus.studies.old.study import StudyRecord, scales
from isthmus.studies.store import ResultStore, Stages

Conditioned = Literal["C-DV", "C-DV-IE", "C-JS", "C-JS-IE"]


class Config(ModelsConfig):
    """Figure 2's.

    Attributes:
        models: those that are conditioned on hypotheses.
        hypothesis: the class whose projection is drawn.
        shown: so many images are drawn.
        blocks: of images, for the interval of MMD².
        fisher: on so many of the images the prediction's Fisher information is measured (appendix D).
    """

    models: Annotated[tuple[Conditioned, ...], Field(min_length=1)] = ("C-DV", "C-DV-IE", "C-JS", "C-JS-IE")
    hypothesis: Annotated[int, Field(ge=0)] = 1
    shown: Positive = 500
    blocks: Annotated[int, Field(ge=3)] = 10
    fisher: Annotated[int, Field(ge=2)] = 500


SCALES = scales(
    Config, tiny={**protocol.TINY_MODELS, "images": 200, "blocks": 4, "fisher": 40}, small=protocol.SMALL_MODELS
)
findings = elimination_claims.findings


def cells(config: Config, bench: ResultStore) -> Stages:
    """Every model, trained and looked into."""
    from isthmus.studies.guess_first import eliminated

    return eliminated.cells(config, bench)


def section(record: StudyRecord) -> Section:
    """The projections, MMD² and the probe under each hypothesis, and sums over them."""
    title = "Figure 2: label information under a hypothesis, with and without elimination"
    return Section(title, catalogue.question(record.study), elimination_page.blocks(record))
