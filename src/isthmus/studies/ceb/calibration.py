"""How does the calibration of CEB, VIB and a deterministic network on Fashion-MNIST change while they train?

Figure 5 of Fischer 2020: reliability diagrams with 90% intervals after 2,000, 20,000 and 40,000 steps. Beside them
stand the expected calibration error and the mean overconfidence over steps.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from isthmus.core.config import Positive
from isthmus.studies.ceb import calibration_claims, calibration_page, fashion
from isthmus.studies.ceb.sweeps import ChosenConfig
from isthmus.studies.old.image_models import Kind
from isthmus.studies.old.study import scales
from isthmus.studies.store import ResultStore, Stages

MODEL = fashion.MODEL
TRAINING: dict[str, Any] = {**fashion.TRAINING, "snapshots": (2000, 20_000, 40_000)}
TINY: dict[str, Any] = {
    "seeds": 1,
    "data": "digits",
    "images": 200,
    "model": {**MODEL, "backbone": {"name": "mlp", "hidden": [64]}, "components": 8},
    "training": {"epochs": 10, "batch_size": 128, "optimizer": {"lr": 5e-3}, "snapshots": (5, 50, 110)},
}
SMALL: dict[str, Any] = {
    "seeds": 2,
    "training": {
        **fashion.TRAINING,
        "epochs": 30,
        "snapshots": (352, 3520, 7020),  # 1.5, 15 and 30 epochs: as far apart as the paper's
        "precision": "bf16",
        "channels_last": True,
    },
}


class Config(ChosenConfig):
    """As the paper says, with the model and optimiser of the other studies on Fashion-MNIST where it is silent.

    The steps are those of ``training.snapshots``.

    Attributes:
        bins: of equal width.
        resamples: of every bootstrap.
    """

    seeds: Positive = 4
    data: str = "fashion_mnist"
    model: dict[str, Any] = MODEL
    training: dict[str, Any] = TRAINING
    bottlenecks: tuple[tuple[Kind, float], ...] = (("ceb", 0.0), ("vib", 0.0), ("vib", 2.0))
    bins: Annotated[int, Field(gt=0)] = 20
    resamples: Positive = 1000


SCALES = scales(Config, tiny={**TINY, "resamples": 200}, small=SMALL)
findings, section = calibration_claims.findings, calibration_page.section


def cells(config: Config, bench: ResultStore) -> Stages:
    """Every model after every kept step."""
    from isthmus.studies.ceb import calibrating

    yield calibrating.cells(config, bench)
