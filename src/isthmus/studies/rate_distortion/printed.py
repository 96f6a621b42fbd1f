"""Tables 1 and 2 of "A Rate-Distortion Theory of Adversarial Examples" as they are printed, on SVHN.

Every number is a fraction (a printed 85.9 ± 0.2 is 0.859 and 0.002): a mean over five seeds and its standard error.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

Model = Literal["A", "B", "B+", "C"]
"""A has no regulariser, B weight decay, B+ the same and more images to train on, C batch normalisation on top of B."""
Labels = Literal["original", "random"]
MODELS: tuple[Model, ...] = ("A", "B", "B+", "C")
_COLUMNS: tuple[Model, ...] = ("A", "B", "C")


class Mean(NamedTuple):
    """A mean over seeds with its standard error."""

    value: float
    error: float


class Entry(NamedTuple):
    """What is printed of a model at a batch size.

    Attributes:
        accuracy: on the test set with the original labels (table 1), on the training set with random ones (table 2).
        gap: training less test accuracy.
    """

    accuracy: Mean
    gap: Mean


Printed = Mapping[tuple[Model, int], Entry]


def _table(rows: Mapping[int, tuple[tuple[float, float, float, float] | None, ...]]) -> Printed:
    entries = {}
    for batch, columns in rows.items():
        for model, numbers in zip(_COLUMNS, columns, strict=True):
            if numbers is not None:
                accuracy, accuracy_error, gap, gap_error = (round(each / 100, 6) for each in numbers)
                entries[model, batch] = Entry(Mean(accuracy, accuracy_error), Mean(gap, gap_error))
    return MappingProxyType(entries)


TABLE_1 = _table(
    {
        128: ((85.9, 0.2, 14.1, 0.2), (88.4, 0.2, 4.8, 0.1), (87.1, 0.4, 12.42, 0.04)),
        64: ((86.3, 0.1, 13.7, 0.1), (87.6, 0.1, 5.5, 0.2), (85.1, 0.5, 11.3, 0.2)),
        32: ((86.6, 0.1, 13.4, 0.1), (87.2, 0.4, 5.4, 0.2), (85.2, 0.4, 9.0, 0.3)),
    }
)
"""The original labels: test accuracy and gap. Model A is right on every training image."""
TABLE_2 = _table(
    {
        128: ((85, 3, 76, 3), (10.20, 0.03, 3, 2), (67, 1, 57, 1)),
        32: ((90, 2, 79, 2), None, (42, 1, 32, 1)),
    }
)
"""Random labels: training accuracy and gap."""
MORE_ACCURATE = Mean(0.02, 0.003)
"""By how much B+ is more accurate than B; its gap is smaller by 0.3 ± 0.1 points."""
TABLES: Mapping[Labels, Printed] = MappingProxyType({"original": TABLE_1, "random": TABLE_2})
