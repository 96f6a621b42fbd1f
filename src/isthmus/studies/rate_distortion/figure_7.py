"""What is a network worth on digits of another kind, as it is and after one example of each, and do its margins say so?

Figure 7 and appendix C of "A Rate-Distortion Theory of Adversarial Examples": from SVHN to MNIST, of which the network
gets grey images in [0, 1] without the whitening that it was trained with. The check ``transfer`` measures. The paper's
model is B+, which has weight decay and more training images; the others stand beside it.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from isthmus.core.recipe import Positive
from isthmus.core.types import Section
from isthmus.studies.old.evidence import ClaimResult
from isthmus.studies.old.image_models import Eps
from isthmus.studies.old.study import StudyRecord, scales
from isthmus.studies.rate_distortion import protocol, transfer_claims, transfer_page, weight_decay
from isthmus.studies.rate_distortion.printed import MODELS, Model
from isthmus.studies.store import ResultStore, Stages


class Config(protocol.TableConfig):
    """Appendix C, for the models with one batch size.

    Attributes:
        target: the other data, with the same classes in the same order.
        images: judge on so many of its test images, class-balanced; None for all.
        whitened: whether they go through the model's whitening. The paper's do not.
        draws: adaptations, each by other examples.
        steps, learning_rate: of plain SGD; the paper does not say the rate, and this is that of training.
        degrees: at most so far every example is turned at every step, either way.
    """

    models: Annotated[tuple[Model, ...], Field(min_length=1)] = MODELS
    batch_sizes: tuple[Positive] = (128,)
    target: str | dict[str, Any] = "mnist"
    images: Positive | None = None
    whitened: bool = False
    draws: Positive = 5
    steps: Positive = 10
    learning_rate: Eps = 1e-2
    degrees: Annotated[float, Field(ge=0, le=180)] = 10.0


SCALES = scales(
    Config,
    tiny=protocol.of_one_batch(protocol.TINY_FIGURE, target="digits", images=100, draws=2),
    small=protocol.of_one_batch(protocol.SMALL_DIGITS, target="digits"),
)


def cells(config: Config, bench: ResultStore) -> Stages:
    """The choice of λ, then a cell for every model."""
    from isthmus.studies.rate_distortion import transferred

    config = yield from weight_decay.chosen(config, bench)
    yield transferred.cells(config, bench)


def findings(record: StudyRecord) -> list[ClaimResult]:
    """What the paper says of the figure."""
    return transfer_claims.findings(weight_decay.judged(record))


def section(record: StudyRecord) -> Section:
    """Margins, and accuracy over them."""
    return weight_decay.beside(transfer_page.section(weight_decay.judged(record)), record)
