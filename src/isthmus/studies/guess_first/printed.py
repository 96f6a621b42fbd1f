"""Tables 1 and 2 of Guess First as they are printed: accuracies, as fractions (a printed 84.7 is 0.847)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

MODELS = ("CNN", "C-DV", "C-JS", "C-DV-IE", "C-JS-IE", "VIB")
"""The columns; the paper heads the last one "Alemi et al."."""


class Row(NamedTuple):
    """What a row of the tables is about.

    Attributes:
        box: "clean", "black" (images found on a substitute) or "white".
        attack: "fgsm", "pgd" or "cw"; "" for clean images.
        eps: in ℓ∞ for the first two, in ℓ2 for C&W; images lie in [0, 1].
    """

    box: str
    attack: str
    eps: float


CLEAN = Row("clean", "", 0.0)
LINF, L2 = (0.15, 0.3), (2.0,)
"""The perturbation sizes that the tables list."""
ROWS = (
    CLEAN,
    *(Row("black", attack, eps) for attack in ("fgsm", "pgd") for eps in LINF),
    Row("black", "cw", *L2),
    *(Row("white", attack, eps) for attack in ("fgsm", "pgd") for eps in LINF),
    Row("white", "cw", *L2),
)
"""In the printed order."""

_MNIST = (
    (98.8, 98.9, 99.0, 98.9, 99.0, 99.0),
    (65.6, 84.7, 88.0, 91.1, 89.8, 83.6),
    (16.0, 32.8, 26.8, 44.6, 40.6, 27.3),
    (53.7, 84.1, 85.0, 87.2, 87.6, 74.3),
    (8.4, 24.0, 13.1, 27.7, 27.0, 15.5),
    (63.4, 76.0, 74.4, 79.3, 74.8, 66.7),
    (40.8, 54.0, 75.6, 58.7, 82.8, 50.7),
    (13.4, 23.8, 74.4, 31.9, 81.1, 19.1),
    (4.4, 26.2, 69.8, 38.0, 78.0, 11.4),
    (0.0, 4.8, 29.7, 7.4, 50.0, 1.0),
    (1.5, 34.6, 7.7, 38.8, 9.6, 6.7),
)
_FASHION = (
    (91.7, 91.3, 92.0, 90.4, 91.0, 92.3),
    (18.2, 52.3, 47.9, 54.9, 51.3, 29.3),
    (9.6, 24.2, 19.8, 28.8, 24.7, 15.3),
    (12.4, 48.6, 45.7, 48.0, 47.6, 24.6),
    (4.8, 15.3, 11.8, 15.9, 14.5, 6.6),
    (14.9, 20.5, 19.1, 24.7, 21.6, 18.9),
    (14.4, 32.6, 43.5, 33.8, 49.3, 27.9),
    (7.9, 15.2, 39.7, 18.9, 44.0, 12.5),
    (3.6, 14.0, 38.5, 17.0, 41.2, 7.7),
    (0.0, 2.6, 23.4, 5.7, 33.5, 0.0),
    (0.0, 8.4, 2.9, 11.7, 3.5, 0.0),
)

Printed = Mapping[Row, Mapping[str, float]]


def _table(percents: tuple[tuple[float, ...], ...]) -> Printed:
    # rounded, so that 65.6 becomes the float nearest to 0.656
    rows = {
        row: MappingProxyType({name: round(value / 100, 3) for name, value in zip(MODELS, values, strict=True)})
        for row, values in zip(ROWS, percents, strict=True)
    }
    return MappingProxyType(rows)


TABLE_1, TABLE_2 = _table(_MNIST), _table(_FASHION)
TABLES: Mapping[str, Printed] = MappingProxyType({"mnist": TABLE_1, "fashion_mnist": TABLE_2})
"""What is printed, by name of the data set; table 1 is of MNIST, table 2 of Fashion-MNIST."""


def value(data: str, row: Row, model: str) -> float | None:
    """A printed accuracy; None for other data sets, rows and models."""
    return TABLES.get(data, {}).get(row, {}).get(model)
