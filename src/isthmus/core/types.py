"""Plain data that packages exchange. Nothing here imports torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, RootModel, field_validator, model_validator

from isthmus.core.errors import unknown
from isthmus.core.format import STATUSES, count, in_words, listed
from isthmus.core.notebook import Summarized, html_table

if TYPE_CHECKING:
    from torch import Tensor

Coordinate = str | int | float

COORDINATES: Mapping[str, str] = {
    "mode": 'how a stochastic classifier predicts: "mean" or "stochastic"',
    "attack": "name of the attack; absent for the worst case over all attacks",
    "norm": '"linf", "l2" or "l1"',
    "access": 'of an attacker to the model: "white" box, or "black" box if it calls a substitute',
    "restarts": "random starts of an attack",
    "direction": 'of a perturbation: "worst" or "random"',
    "points": "set of points of a toy problem",
    "eps": "perturbation size, in units of images in [0, 1]",
    "noise": 'kind of noise: "white", "l2" or "linf"',
    "snr": "signal-to-noise ratio in dB",
    "score": "out-of-distribution score",
    "data": "data set other than the audited one",
    "source": "model that adversarial images were made on",
    "out": "kind of out-of-distribution images",
    "shots": "training examples of each class that the model was adapted to",
    "scaling": 'recalibration: "none", "temperature", "vector" or "isotonic"',
    "conformal": 'conformal score of prediction sets: "lac" or "aps"',
    "corruption": "name of the corruption",
    "severity": "of a corruption, 1 to 5",
    "class": "index of the true class",
    "seed": "of training",
    "draw": "index of a random draw",
    "epoch": "of training, counted from 1",
    "layer": "name of the layer",
    "study": "name of the study",
    "model": "name of the model",
    "variant": "way of training",
    "objective": "name of the training objective",
    "rho": "trade-off parameter",
    "beta": "weight of the rate, the trade-off parameter of VIB",
    "std_offset": "added to what an encoder's softplus makes the standard deviation of",
    "batch_size": "images in a batch",
    "weight_decay": "λ, in PyTorch's convention",
    "hypothesis": "index of the class that a prediction is conditioned on",
    "labels": 'of the training images: "original" or "random"',
    "step": "of training, counted from 1",
}
"""All coordinates that a :class:`Metric` can have, with their meaning."""


@dataclass(frozen=True)
class Terms:
    """Terms of an objective on one batch: scalars in nats, averaged over the batch.

    Only ``total`` and ``marginal_nll`` carry gradients. ``None`` means "not measured", never zero.

    Attributes:
        total: the loss to minimise, ``ce + weight · information``.
        ce: classification cross-entropy E[−log c(y|z)].
        accuracy: accuracy of the averaged prediction on the batch, in [0, 1] (not nats).
        weight: the weight of the information term in ``total``.
        i_yz_lower: H(Y) − ce, a lower bound on I(Y;Z); H(Y) is that of the training labels, ln C if unknown.
        rate: R = E[log e(z|x) − log m(z)], an upper bound on I(X;Z).
        residual: ReX = E[log e(z|x) − log b(z|y)], an upper bound on I(X;Z|Y).
        reverse_ce: cross-entropy of identifying, among the batch's images, the one of a code drawn from b(z|y).
        reverse_residual: E[log b(z|y) − log e(z|x)] of such codes, an upper bound on I(Y;Z|X).
        rate_lower: InfoNCE bound, at most I(X;Z) and at most ln(batch).
        rate_upper: leave-one-out bound, at least I(X;Z) in expectation.
        consistency_gap: E[log b(z|y) − log m(z)] − E[log c(y|z) − log p(y)]: two estimates of I(Y;Z), as
            H(Z) − H(Z|Y) and as H(Y) − H(Y|Z). Its absolute value is :attr:`consistency`.
        marginal_nll: E[−log m(z)] on detached codes, the loss of a learned marginal that must not touch the
            encoder.
        pairwise_upper, pairwise_lower: bounds on I(X;Z) for the inputs of this batch alone, from distances between
            their codes' means (Kolchinsky, Tracey & Wolpert 2019); neither exceeds ln(batch), even if I(X;Z)
            does.
        bound: the objective of a classifier of label hypotheses, a lower bound on an f-divergence between true pairs
            and all pairs of image and label.
        elimination: Σ over hypotheses of MMD², the label information in the hidden representations that ``total``
            minimises; not in nats.
        elimination_unbiased: the same with the unbiased estimate, which is 0 in expectation if no information is left.
        levels: terms of each level of a hierarchy Z_1, …, Z_L, lowest first. ``total`` is then the sum of theirs;
            ``ce``, ``accuracy``, ``i_yz_lower`` and ``consistency_gap`` are the highest level's, which classifies;
            the rates and ``residual`` are the lowest's, since I(X; Z_1, …, Z_L) = I(X;Z_1).
    """

    total: Tensor
    ce: Tensor
    accuracy: Tensor
    weight: float = 0.0
    i_yz_lower: Tensor | None = None
    rate: Tensor | None = None
    residual: Tensor | None = None
    reverse_ce: Tensor | None = None
    reverse_residual: Tensor | None = None
    rate_lower: Tensor | None = None
    rate_upper: Tensor | None = None
    consistency_gap: Tensor | None = None
    marginal_nll: Tensor | None = None
    pairwise_upper: Tensor | None = None
    pairwise_lower: Tensor | None = None
    bound: Tensor | None = None
    elimination: Tensor | None = None
    elimination_unbiased: Tensor | None = None
    levels: tuple[Terms, ...] = ()

    @property
    def consistency(self) -> Tensor | None:
        """|consistency_gap|: the consistency metric (Fischer 2020, eq. 8); 0 if both estimates of I(Y;Z) agree.

        For several batches, take the absolute value of the mean gap: a mean of absolute values never reaches 0.
        """
        return None if self.consistency_gap is None else self.consistency_gap.abs()

    def measured(self) -> dict[str, Tensor | float]:
        """The measured terms by name; those of level i of a hierarchy start with ``level_i_``."""
        found = {name: value for name, value in vars(self).items() if value is not None and name != "levels"}
        for number, level in enumerate(self.levels, 1):
            found |= {f"level_{number}_{name}": value for name, value in level.measured().items()}
        return found

    def scalars(self) -> dict[str, float]:
        """The measured terms as Python floats (this waits for the device)."""
        return {
            name: value if isinstance(value, float) else float(value.detach())
            for name, value in self.measured().items()
        }


class Status(StrEnum):
    """Outcome of a check.

    ``measured`` is a number without a threshold. ``pass``, ``warn`` and ``fail`` compare with the thresholds that the
    result states. ``skipped`` means that the check does not apply, and is never shown as passed.
    """

    MEASURED = "measured"
    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"
    ERROR = "error"


class Record(BaseModel):
    """Base of results that are written as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    def plain(self) -> dict[str, Any]:
        """The record as JSON-able data; infinities as strings, since JSON has none."""
        content: dict[str, Any] = json.loads(self.model_dump_json())
        return content


class Interval(Record):
    """A confidence interval; ``method`` is how it was computed ("Wilson", "bootstrap over examples", ...)."""

    low: float
    high: float
    level: float = 0.95
    method: str


class Metric(Summarized, Record):
    """One measured number.

    Attributes:
        name: what was measured, such as "robust_accuracy".
        value: the number; None means "not measured", and ``note`` gives the reason.
        unit: "fraction" for numbers in [0, 1], "nats", "bits", or another word.
        n: number of examples.
        coords: under which conditions, such as ``{"mode": "mean", "attack": "pgd", "eps": 0.1}``; keys are in
            :data:`COORDINATES`.
    """

    name: str = ""
    value: float | None
    unit: str
    n: int
    interval: Interval | None = None
    note: str = ""
    coords: dict[str, Coordinate] = Field(default_factory=dict)

    @field_validator("coords")
    @classmethod
    def _known(cls, coords: dict[str, Coordinate]) -> dict[str, Coordinate]:
        for key, value in coords.items():
            if key not in COORDINATES:
                raise ValueError(unknown("coordinate", key, COORDINATES))
            if isinstance(value, float) and math.isnan(value):
                raise ValueError(f"the coordinate {key} is NaN")
        return coords

    def named(self, name: str, **coords: Coordinate) -> Metric:
        """This metric with a name, and with these coordinates beside its own."""
        return Metric(**{**dict(self), "name": name, "coords": self.coords | coords})

    def row(self) -> dict[str, Any]:
        """One flat row of a table: name, coordinates, value, unit, n, interval and note."""
        ends = {} if self.interval is None else dict(self.interval)
        interval = {key: ends.get(key) for key in ("low", "high", "level", "method")}
        return {
            "name": self.name,
            **self.coords,
            "value": self.value,
            "unit": self.unit,
            "n": self.n,
            **interval,
            "note": self.note,
        }

    def _summary(self) -> dict[str, str]:
        return {_address(self.name, self.coords) or "Metric": _in_words(self)}


class Metrics(Summarized, RootModel[tuple[Metric, ...]]):
    """Metrics in order of display, looked up by name and coordinates.

    Raises:
        ValueError: two metrics have the same name and coordinates.
    """

    model_config = ConfigDict(frozen=True)

    root: tuple[Metric, ...] = ()

    def __init__(self, metrics: Iterable[Metric] = (), /, **data: Any) -> None:
        super().__init__(data["root"] if "root" in data else tuple(metrics))

    @model_validator(mode="after")
    def _distinct(self) -> Metrics:
        seen = set()
        for metric in self.root:
            key = (metric.name, frozenset(metric.coords.items()))
            if key in seen:
                raise ValueError(f"two metrics are called {_address(metric.name, metric.coords)}")
            seen.add(key)
        return self

    def __iter__(self) -> Iterator[Metric]:  # type: ignore[override]
        return iter(self.root)

    def __len__(self) -> int:
        return len(self.root)

    def select(self, name: str | None = None, **coords: Coordinate | None) -> Metrics:
        """The metrics with this name and at least these coordinates; a coordinate None must be absent."""
        return Metrics(
            metric
            for metric in self
            if name in (None, metric.name) and all(metric.coords.get(key) == value for key, value in coords.items())
        )

    def get(self, name: str, **coords: Coordinate) -> Metric | None:
        """The metric with this name and exactly these coordinates, or None."""
        return next((metric for metric in self if metric.name == name and metric.coords == coords), None)

    def one(self, name: str, **coords: Coordinate) -> Metric:
        """The metric with this name and exactly these coordinates.

        Raises:
            KeyError: there is none.
        """
        found = self.get(name, **coords)
        if found is None:
            near = [_address(metric.name, metric.coords) for metric in self.select(name)] or sorted(self.names())
            raise KeyError(f"There is no metric {_address(name, coords)}; there is {', '.join(near[:10]) or 'none'}.")
        return found

    def names(self) -> list[str]:
        """Each name once, in order of first appearance."""
        return list(dict.fromkeys(metric.name for metric in self))

    def rows(self) -> list[dict[str, Any]]:
        """Tidy rows, one a metric; see :meth:`Metric.row`."""
        return [metric.row() for metric in self]

    def _summary(self) -> dict[str, str]:
        return {"Metrics": count(len(self), "number"), "names": listed(self.names()) or "none"}

    def _repr_html_(self) -> str:
        return html_table({_address(metric.name, metric.coords): _in_words(metric) for metric in self})


def _address(name: str, coords: Mapping[str, Coordinate]) -> str:
    inside = ", ".join(f"{key}={value}" for key, value in coords.items())
    return f"{name}[{inside}]" if inside else name


def _in_words(metric: Metric) -> str:
    return in_words(metric) if metric.value is not None or not metric.note else f"{in_words(metric)}: {metric.note}"


class Caution(Record):
    """What an audit noticed about a classifier before it measured anything.

    Attributes:
        about: what it concerns, in a word: "chance", "labels", "images", "settings" and so on.
        level: "error" if numbers say nothing about the classifier, so that no attack runs; "warning" if they may not be
            those that are meant; "note" if they are right, and the caller's own code may be wrong.
        text: the finding, and what to do.
    """

    about: str
    level: Literal["error", "warning", "note"]
    text: str


class CheckResult(Summarized, Record):
    """What one check found about one classifier.

    Attributes:
        reason: one sentence that explains the status.
        metrics: the numbers, in order of display.
        thresholds: what the status compares metrics with, by the metric's name; empty for a mere measurement.
        details: JSON-able facts that the page needs (bins, settings, names).
        arrays: per-example arrays behind the numbers, saved beside the JSON as ``.npz``.
        options: the check's options with all defaults filled in. The audit sets this and the following fields.
        provenance: date, machine and versions that made this result.
        seconds: duration of the check.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    check: str
    status: Status
    reason: str
    metrics: Metrics = Field(default_factory=Metrics)
    thresholds: dict[str, float] = Field(default_factory=dict)
    details: dict[str, Any] = Field(default_factory=dict)
    arrays: dict[str, np.ndarray] = Field(default_factory=dict, exclude=True, repr=False)
    options: dict[str, Any] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)
    seconds: float = 0.0

    def _summary(self) -> dict[str, str]:
        first = self.metrics.root[0]._summary() if len(self.metrics) else {}
        return {f"CheckResult {self.check}": STATUSES[self.status], "reason": self.reason, **first}
