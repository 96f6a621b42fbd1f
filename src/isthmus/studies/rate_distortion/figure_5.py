"""How does the information about the label fall as the noise in the image grows, with weight decay and with batch norm?

Figure 5 of "A Rate-Distortion Theory of Adversarial Examples": the models of table 1 under unbounded steps along the
gradient, along its sign, and under white noise; I(T;Y) in bits over the signal-to-noise ratio in dB. The check
``noise_robustness`` measures. As in figure 4, X is the whitened image; ``space=pixels`` is the other reading. Model A,
without any regulariser, stands beside the paper's two.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from isthmus.core.recipe import Fraction, Positive
from isthmus.core.types import Section
from isthmus.studies.old.evidence import ClaimResult
from isthmus.studies.old.study import StudyRecord, scales
from isthmus.studies.rate_distortion import noise_claims, noise_page, protocol, weight_decay
from isthmus.studies.store import ResultStore, Stages

Noise = Literal["white", "l2", "linf"]


class Config(protocol.TableConfig):
    """Figure 5's, of the models with one batch size.

    Attributes:
        images: judge on so many test images, class-balanced; None for all.
        noises: kinds of noise.
        high, low: ratios in dB between which noise grows.
        spacing: dB from one ratio to the next.
        space: where noise is added, and image and noise are compared: in "whitened" images or in "pixels".
        least_accuracy: test accuracy below which a model is no subject for the paper's claims, which are then not
            decided; the paper's models have 87% and 88%.
    """

    batch_sizes: tuple[Positive] = (128,)
    images: Positive | None = 10_000
    noises: Annotated[tuple[Noise, ...], Field(min_length=1)] = ("l2", "linf", "white")
    high: Annotated[float, Field(gt=0)] = 60.0
    low: Annotated[float, Field(gt=0)] = 1.0
    spacing: Annotated[float, Field(gt=0)] = 1.0
    space: Literal["whitened", "pixels"] = "whitened"
    least_accuracy: Fraction = 0.8


SCALES = scales(
    Config,
    tiny=protocol.of_one_batch(protocol.TINY_FIGURE, images=100, spacing=10.0),
    small=protocol.of_one_batch(protocol.SMALL_DIGITS, images=1000, spacing=3.0),
)


def cells(config: Config, bench: ResultStore) -> Stages:
    """The choice of λ, then a cell for every model."""
    from isthmus.studies.rate_distortion import tolerance

    config = yield from weight_decay.chosen(config, bench)
    yield tolerance.cells(config, bench)


def findings(record: StudyRecord) -> list[ClaimResult]:
    """What the paper says of the figure."""
    return noise_claims.findings(weight_decay.judged(record))


def section(record: StudyRecord) -> Section:
    """Information and accuracy over the ratio."""
    return weight_decay.beside(noise_page.section(weight_decay.judged(record)), record)
