"""Table 1 of Fischer 2020 ("The Conditional Entropy Bottleneck") as it is printed, and what in it cannot be.

Every number is a fraction (a printed 93.5 is 0.935), exact to the printed digit. In-distribution is the positive class,
as "AUPR In" says.
"""

from __future__ import annotations

from typing import NamedTuple

DIGIT = 0.0005
"""What the printed tenth of a percent leaves open, on either side."""

Model = tuple[str, float | None]
DETERM: Model = ("determ", None)
VIB_4: Model = ("vib", 4.0)
VIB_0: Model = ("vib", 0.0)
CEB_0: Model = ("ceb", 0.0)


class Row(NamedTuple):
    """One row.

    Attributes:
        out: name of the out-distribution in metrics of the check ``ood_detection``.
        model: kind and ρ. The deterministic network is judged by entropy, the others by their rate.
        fpr95_in: false positive rate at 95% true positive rate.
        success: of the attack; None where the images are not adversarial.
    """

    out: str
    model: Model
    fpr95_in: float
    auroc: float
    aupr_in: float
    success: float | None = None

    @property
    def score(self) -> str:
        """Whose threshold it is: "entropy" or "rate"."""
        return "entropy" if self.model == DETERM else "rate"

    @property
    def least_auroc(self) -> float:
        """The least AUROC that goes with the row's false positive rate.

        Where 95% of the in-distribution images pass, so do ``fpr95_in`` of the others. The curve rises: from there on
        it lies at 95% at least, so that the area is at least 0.95 · (1 − fpr95_in).
        """
        return 0.95 * (1 - self.fpr95_in)

    @property
    def possible(self) -> bool:
        """Whether any scores have these two numbers, with as much as rounding leaves open."""
        return self.auroc + DIGIT >= 0.95 * (1 - self.fpr95_in - DIGIT)


def _rows(out: str, *numbers: tuple[float, ...]) -> tuple[Row, ...]:
    models = (DETERM, VIB_4, VIB_0, CEB_0)
    return tuple(
        Row(out, model, *(round(number / 100, 4) for number in row)) for model, row in zip(models, numbers, strict=True)
    )


TABLE_1 = (
    *_rows("uniform_noise", (35.8, 93.5, 97.1), (0.0, 100.0, 100.0), (80.6, 57.1, 51.4), (0.0, 100.0, 100.0)),
    *_rows("mnist", (59.0, 88.4, 90.0), (0.0, 100.0, 100.0), (12.3, 66.7, 91.1), (0.1, 94.4, 99.9)),
    *_rows("vertical_flip", (66.8, 88.6, 90.2), (0.0, 100.0, 100.0), (17.3, 52.7, 91.3), (0.0, 90.7, 100.0)),
    *_rows(
        "cw", (15.4, 90.7, 86.0, 100.0), (0.0, 100.0, 100.0, 55.2), (0.0, 98.7, 100.0, 35.8), (0.0, 99.7, 100.0, 35.8)
    ),
)
"""In the printed order: four models for each out-distribution."""
OUTS = {"uniform_noise": "U(0, 1)", "mnist": "MNIST", "vertical_flip": "vertical flips", "cw": "C&W"}
IMPOSSIBLE = tuple(row for row in TABLE_1 if not row.possible)


def row(out: str, model: Model) -> Row | None:
    """A row of the table; None for other models and out-distributions."""
    return next((each for each in TABLE_1 if (each.out, each.model) == (out, model)), None)
