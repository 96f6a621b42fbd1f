"""Tables 1 and 2: regularisers, batch sizes and the generalisation gap, on original and on random labels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

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
    claim = partial(Claim, over=("batch_size",), place="Table 1, p. 8")
    text = "With batch normalisation (C) a small large-batch gap appears."
    return [
        claim("Model A fits the training set.", left=TRAIN.at(model="A"), right=FITTED, about="training accuracy of A"),
        *(_narrower(claim, other, config.margin) for other in ("A", "C")),
        claim(
            "B is more accurate on test images than A.",
            left=TEST.at(model="B"),
            right=TEST.at(model="A"),
            about="test accuracy of B less that of A",
        ),
        _no_large_batch_gap(claim, "B", config),
        claim(
            "More training images (B+) make B more accurate, by 2.0 points in the paper.",
            left=TEST.at(model="B+"),
            right=TEST.at(model="B"),
            about="test accuracy of B+ less that of B",
            place="Section 4.3, p. 7",
            optional="B+" not in config.models,
        ),
        claim(text, **_of_batches("C", config)),
    ]


def _random(config: Table2Config) -> list[Claim]:
    claim = partial(Claim, over=("batch_size",), place="Table 2, p. 8")
    text = "On random labels C has a large-batch gap: larger batches memorise more."
    return [
        claim(
            "Model A memorises random labels.",
            left=TRAIN.at(model="A"),
            right=weight_decay.MEMORISED,
            about="training accuracy of A",
        ),
        claim(
            "With weight decay alone (B) random labels are not fitted better than chance.",
            left=TRAIN.at(model="B"),
            op="<",
            right=select("constant_accuracy", model="B"),
            margin=-weight_decay.ABOVE_CHANCE,
            about="training accuracy of B less that of the best constant prediction",
        ),
        _narrower(claim, "C", LARGE),
        claim(text, right=LARGE, **_of_batches("C", config)),
        _no_large_batch_gap(claim, "A", config),
    ]


def _narrower(claim: Callable[..., Claim], other: str, margin: float) -> Claim:
    return claim(
        f"Weight decay narrows the generalisation gap: B's is at least {100 * margin:g} points smaller than {other}'s.",
        left=GAP.at(model=other),
        right=GAP.at(model="B"),
        margin=margin,
        about=f"gap of {other} less that of B",
    )


def _no_large_batch_gap(claim: Callable[..., Claim], model: str, config: TableConfig) -> Claim:
    text = f"Model {model} has no large-batch generalisation gap."
    return claim(text, op="within", margin=SMALL, **_of_batches(model, config))


def _of_batches(model: str, config: TableConfig) -> dict[str, Any]:
    """The comparison of the gap with the largest batches and that with the smallest."""
    large, small = max(config.batch_sizes), min(config.batch_sizes)
    gap = GAP.at(model=model)
    difference: Quantity = gap.at(batch_size=large) - gap.at(batch_size=small)
    if large == small:  # no row has this batch size, so that the claim is undecided
        difference = gap.at(batch_size=0)
    about = f"gap of {model} with batches of {large} less that with {small}"
    return {"left": difference, "over": (), "about": about}


def _blocks(labels: Labels) -> tuple[Block, ...]:
    table = Pivot(
        title=f"Accuracy and generalisation gap, {labels} labels",
        reading=f"{_READINGS[labels]} Ours: means over seeds; the intervals cover images and, from three seeds on, "
        "seeds. The paper's: means with standard errors.",
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
        question="How do weight decay, batch norm and batch size change test accuracy and the generalisation gap?",
        config=Table1Config,
        measure="experiments:original",
        claims=_original,
        blocks=_blocks("original"),
        names=NAMES,
    ),
    Study(
        name="rate-distortion/table-2",
        title="Table 2: the same models on random labels",
        question="Which regularisers keep a network from memorising labels that do not depend on the images?",
        config=Table2Config,
        measure="experiments:random",
        claims=_random,
        blocks=_blocks("random"),
        names=NAMES,
    ),
)
