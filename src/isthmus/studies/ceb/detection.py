"""How well do the entropy of a deterministic network and the rate of bottlenecks tell foreign images on Fashion-MNIST?

Table 1 of Fischer 2020: uniform noise, MNIST, Fashion-MNIST upside down, and the adversarial images of Carlini and
Wagner's ℓ2 attack. Four of the printed rows cannot be: with so few false positives the area is larger
(:data:`isthmus.studies.ceb.printed_detection.IMPOSSIBLE`). Beside ours stand all scores that each model has.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from isthmus.core.config import Positive
from isthmus.studies.ceb import calibration, detection_claims, detection_page
from isthmus.studies.ceb.sweeps import ChosenConfig
from isthmus.studies.old.image_models import Kind
from isthmus.studies.old.study import scales
from isthmus.studies.store import ResultStore, Stages


class Config(ChosenConfig):
    """Images of the test set are in-distribution; all of them, and as many of each other kind.

    Attributes:
        outs: as the check ``ood_detection`` takes them.
        samples: codes an image for rate and ReX.
        attacked: adversarial images are sought for so many of the judged ones.
        resamples: of every bootstrap.
    """

    seeds: Positive = 4
    data: str = "fashion_mnist"
    model: dict[str, Any] = calibration.MODEL
    training: dict[str, Any] = calibration.TRAINING
    bottlenecks: tuple[tuple[Kind, float], ...] = (("vib", 4.0), ("vib", 0.0), ("ceb", 0.0))
    outs: Annotated[tuple[str | dict[str, Any], ...], Field(min_length=1)] = (
        "uniform_noise",
        "mnist",
        "vertical_flip",
        "cw",
    )
    samples: Annotated[int, Field(ge=0)] = 16
    attacked: Positive = 10_000
    resamples: Positive = 1000


SCALES = scales(
    Config,
    tiny={
        **calibration.TINY,
        "images": 100,
        "outs": ("uniform_noise", "vertical_flip", {"name": "cw", "steps": 20, "binary_search_steps": 3}),
        "attacked": 20,
        "resamples": 200,
    },
    small={
        **calibration.SMALL,
        # longer steps make up for fewer
        "outs": ("uniform_noise", "mnist", "vertical_flip", {"name": "cw", "steps": 100, "learning_rate": 0.1}),
        "attacked": 500,
    },
)
findings, section = detection_claims.findings, detection_page.section


def cells(config: Config, bench: ResultStore) -> Stages:
    """Every model on every out-distribution."""
    from isthmus.studies.ceb import detecting

    yield detecting.cells(config, bench)
