"""Does a network compress its images once it has fitted their labels, and what does it do where labels are random?

Figure 3 of "A Rate-Distortion Theory of Adversarial Examples": the ReLU network of figure 2 in the information plane,
on the original labels and on random ones. The degree of memorisation is the distance of I(X;T) from the least that any
code of the same I(T;Y) needs, which for labels that follow from images is I(T;Y) itself.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field

from isthmus.core.recipe import Positive
from isthmus.core.types import Section
from isthmus.studies.old.evidence import ClaimResult
from isthmus.studies.old.study import StudyRecord, scales
from isthmus.studies.rate_distortion import digits_pair, plane_claims, plane_page
from isthmus.studies.store import Experiment, ResultStore, Stages

TRAINING: dict[str, Any] = {**digits_pair.TRAINING, "epochs": 10_000}


class Config(digits_pair.PairConfig):
    """Figure 3's.

    Attributes:
        every: layers are looked at after every so many epochs.
        samples: training images that they are looked at with.
        bins: of each layer.
    """

    training: dict[str, Any] = TRAINING
    every: Positive = 10
    samples: Annotated[int, Field(gt=1)] = 2000
    bins: Annotated[int, Field(gt=1)] = 30


SCALES = scales(
    Config,
    tiny={**digits_pair.TINY, "every": 2, "samples": 200},
    small={"seeds": 2, "training": {**TRAINING, "epochs": 400}},
)


def cells(config: Config, bench: ResultStore) -> Stages:
    """A cell for each seed and kind of labels."""
    yield [_cell(config, bench, seed, random) for seed in range(config.seeds) for random in (False, True)]


def _cell(config: Config, bench: ResultStore, seed: int, random: bool) -> Experiment:
    """``{"epochs": [...], "layers": {"1": {"i_xt", "i_ty": [... in bits]}, …}, "label_entropy_bits", …}``.

    ``pixel_entropy_bits`` bounds H(X) of the training images: their pixels' entropies, as if they were independent.
    Layers are counted from the input; the last is the logits.
    """
    observe = {"name": "information_plane", "every": config.every, "samples": config.samples, "bins": config.bins}
    recipe = config.recipe(seed, observe, random=random)

    def measure() -> dict[str, Any]:
        from isthmus.data.loading import load
        from isthmus.information.discrete import independent_entropy

        run = bench.train(recipe)
        pixels = load(recipe["data"]).train.images.flatten(1).numpy()
        lines = [line for line in run.metrics() if "observed" in line]
        said = [line["observed"]["information_plane"] for line in lines]
        result = run.info()["result"]
        return {
            "labels": "random" if random else "original",
            "seed": seed,
            "epochs": [line["epoch"] + 1 for line in lines],
            "samples": said[0]["samples"],
            "label_entropy_bits": said[0]["label_entropy_bits"],
            "pixel_entropy_bits": independent_entropy(pixels) / math.log(2.0),
            "layers": {
                f"{number}": {
                    part: [each["layers"][name][at] for each in said] for at, part in enumerate(("i_xt", "i_ty"))
                }
                for number, name in enumerate(said[0]["layers"], 1)
            },
            "train_accuracy": result["epoch_accuracy"],
            "test_accuracy": result["test_accuracy"],
        }

    name = f"{'random' if random else 'original'} labels, seed {seed}"
    return Experiment(name, {"recipe": recipe, "measured": "information plane, pixel entropy"}, measure)


def findings(record: StudyRecord) -> list[ClaimResult]:
    """What the paper says of the figure."""
    return plane_claims.findings(record)


def section(record: StudyRecord) -> Section:
    """The plane for both kinds of labels, and I(X;T) and I(T;Y) over epochs."""
    return plane_page.section(record)
