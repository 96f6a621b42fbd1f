"""What does a network send back from a label to an image, with weight decay, with batch norm and without either?

Figure 4 of "A Rate-Distortion Theory of Adversarial Examples": out of faint noise around the mean image, steps along
the gradient of a label until it is predicted with full confidence. The check ``class_prototypes`` measures, in the
space of whitened images as the paper does. Models A, without any regulariser, and C stand beside the paper's B and B+.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from isthmus.core.recipe import Positive
from isthmus.core.types import Section
from isthmus.studies.old.evidence import ClaimResult
from isthmus.studies.old.image_models import Eps
from isthmus.studies.old.study import StudyRecord, scales
from isthmus.studies.rate_distortion import protocol, reverse_claims, reverse_page, weight_decay
from isthmus.studies.rate_distortion.printed import MODELS, Model
from isthmus.studies.store import ResultStore, Stages


class Config(protocol.TableConfig):
    """Figure 4's, of the models with one batch size.

    Attributes:
        images: so many test images, class-balanced, give mean, standard deviation and the classes' means; None for all.
        each: prototypes of each class.
        space: where the steps go: in "whitened" images, as the paper's, or in "pixels".
        step_size: length of a step there.
        confidence: that ends the ascent.
        steps: at most so many.
    """

    models: Annotated[tuple[Model, ...], Field(min_length=1)] = MODELS
    batch_sizes: tuple[Positive] = (128,)
    images: Positive | None = 10_000
    each: Positive = 1
    space: Literal["whitened", "pixels"] = "whitened"
    step_size: Eps = 1e-2
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.9995
    steps: Positive = 1000


SCALES = scales(
    Config,
    tiny=protocol.of_one_batch(protocol.TINY_FIGURE, images=100, each=2),
    small=protocol.of_one_batch(protocol.SMALL_DIGITS, each=5),
)


def cells(config: Config, bench: ResultStore) -> Stages:
    """The choice of λ, then a cell for every model."""
    from isthmus.studies.rate_distortion import reverse

    config = yield from weight_decay.chosen(config, bench)
    yield reverse.cells(config, bench)


def findings(record: StudyRecord) -> list[ClaimResult]:
    """What the paper says of the figure."""
    return reverse_claims.findings(weight_decay.judged(record))


def section(record: StudyRecord) -> Section:
    """Images and prototypes, and how alike they are."""
    return weight_decay.beside(reverse_page.section(weight_decay.judged(record)), record)
