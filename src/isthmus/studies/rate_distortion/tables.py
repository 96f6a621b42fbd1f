"""Tables 1 and 2: regularisers, batch sizes and the generalisation gap, on original and on random labels."""

from __future__ import annotations

from isthmus.core.types import Coordinate
from isthmus.studies.blocks import Block, Pivot
from isthmus.studies.claims import Claim
from isthmus.studies.quantities import Quantity, select
from isthmus.studies.rate_distortion import weight_decay
from isthmus.studies.rate_distortion.configs import Labels, Table1Config, Table2Config, TableConfig
from isthmus.studies.study import Study

NAMES: dict[Coordinate, str] = {
    "A": "A, no regulariser",
    "B": "B, weight decay",
    "B+": "B+, more images",
    "C": "C, weight decay and batch norm",
}
FITTED = 0.99
"""A training accuracy above which labels count as fitted; the paper has 100 ± 0%."""
SMALL, LARGE = 0.05, 0.1
"""A difference between the gaps of two batch sizes is none below the first, and large above the second; the paper has
0.6 and 3 points, and 25 points."""

TRAIN, TEST = select("train_accuracy"), select("test_accuracy")
GAP = TRAIN - TEST
_READINGS: dict[Labels, str] = {
    "original": "Gap: training less test accuracy.",
    "random": "Gap: accuracy on training images and their random labels less that on test images and their own labels. "
    "The best constant prediction on test images is above one over the number of classes if they are not balanced.",
}


def _original(config: Table1Config) -> list[Claim]:
    place = "Table 1, p. 8"
    return [
        Claim(
            "Model A fits the training set.",
            left=TRAIN.at(model="A"),
            right=FITTED,
            over=("batch_size",),
            about="training accuracy of A",
            place=place,
        ),
        *(_narrower(other, config.margin, place) for other in ("A", "C")),
        Claim(
            "B is more accurate on test images than A.",
            left=TEST.at(model="B"),
            right=TEST.at(model="A"),
            over=("batch_size",),
            about="test accuracy of B less that of A",
            place=place,
        ),
        _no_large_batch_gap("B", config, place),
        Claim(
            "More training images (B+) make B more accurate, by 2.0 points in the paper.",
            left=TEST.at(model="B+"),
            right=TEST.at(model="B"),
            over=("batch_size",),
            about="test accuracy of B+ less that of B",
            place="Section 4.3, p. 7",
            optional="B+" not in config.models,
        ),
        _large_batch_gap("C", 0.0, "With batch normalisation (C) a small large-batch gap appears.", config, place),
    ]


def _random(config: Table2Config) -> list[Claim]:
    place = "Table 2, p. 8"
    return [
        Claim(
            "Model A memorises random labels.",
            left=TRAIN.at(model="A"),
            right=weight_decay.MEMORISED,
            over=("batch_size",),
            about="training accuracy of A",
            place=place,
        ),
        Claim(
            "With weight decay alone (B) random labels are not fitted better than chance.",
            left=TRAIN.at(model="B"),
            op="<",
            right=select("constant_accuracy", model="B"),
            margin=-weight_decay.ABOVE_CHANCE,
            over=("batch_size",),
            about="training accuracy of B less that of the best constant prediction",
            place=place,
        ),
        _narrower("C", LARGE, place),
        _large_batch_gap(
            "C", LARGE, "On random labels C has a large-batch gap: larger batches memorise more.", config, place
        ),
        _no_large_batch_gap("A", config, place),
    ]


def _narrower(other: str, margin: float, place: str) -> Claim:
    return Claim(
        f"Weight decay narrows the generalisation gap: B's is at least {100 * margin:g} points smaller than {other}'s.",
        left=GAP.at(model=other),
        right=GAP.at(model="B"),
        margin=margin,
        over=("batch_size",),
        about=f"gap of {other} less that of B",
        place=place,
    )


def _of_batches(model: str, config: TableConfig) -> tuple[Quantity, str]:
    """The gap with the largest batches less that with the smallest."""
    large, small = max(config.batch_sizes), min(config.batch_sizes)
    of_model = GAP.at(model=model)
    about = f"gap of {model} with batches of {large} less that with {small}"
    if large == small:  # there is nothing to compare; no row has this batch size
        return of_model.at(batch_size=0), about
    return of_model.at(batch_size=large) - of_model.at(batch_size=small), about


def _no_large_batch_gap(model: str, config: TableConfig, place: str) -> Claim:
    difference, about = _of_batches(model, config)
    text = f"Model {model} has no large-batch generalisation gap."
    return Claim(text, left=difference, op="within", margin=SMALL, about=about, place=place)


def _large_batch_gap(model: str, limit: float, text: str, config: TableConfig, place: str) -> Claim:
    difference, about = _of_batches(model, config)
    return Claim(text, left=difference, right=limit, about=about, place=place)


def _blocks(labels: Labels) -> tuple[Block, ...]:
    table = Pivot(
        title=f"Accuracy and generalisation gap, {labels} labels",
        reading=f"{_READINGS[labels]} Ours: means over seeds; the intervals cover images and, from three seeds on, "
        "seeds. "
        "The paper's: means with standard errors.",
        rows=("batch_size", "model"),
        columns={
            "train accuracy": TRAIN,
            "test accuracy": TEST,
            "gap": GAP,
            "best constant prediction, train": select("constant_accuracy"),
            "test": select("chance"),
        },
        paper="table-1" if labels == "original" else "table-2",
    )
    return (table, weight_decay.table)


STUDIES = (
    Study(
        name="rate-distortion/table-1",
        title="Table 1: regularisers and the generalisation gap",
        question="How do weight decay, batch normalisation and batch size change test accuracy and the generalisation "
        "gap?",
        config=Table1Config,
        measure="isthmus.studies.rate_distortion.experiments:original",
        claims=_original,
        blocks=_blocks("original"),
        names=NAMES,
    ),
    Study(
        name="rate-distortion/table-2",
        title="Table 2: the same models on random labels",
        question="Which regularisers keep a network from memorising labels that do not depend on the images?",
        config=Table2Config,
        measure="isthmus.studies.rate_distortion.experiments:random",
        claims=_random,
        blocks=_blocks("random"),
        names=NAMES,
    ),
)
