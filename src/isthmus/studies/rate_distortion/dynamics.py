"""Figures 2 and 3: the gradient's signal-to-noise ratio, and the information plane, over training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from isthmus.studies.blocks import Block, Curves, Pivot
from isthmus.studies.claims import Claim, Comparison
from isthmus.studies.quantities import Quantity, Select, select
from isthmus.studies.rate_distortion.configs import GradientConfig, PlaneConfig
from isthmus.studies.study import Study

WINDOWS = 10
"""Courses are smoothed by means over this fraction of them."""
NEAR = 0.25
"""Decades within which a ratio counts as having settled."""
SETTLED = 0.05
"""Decades by which a ratio may still move from the next to last tenth of training to the last, to be constant."""
COMPRESSED = 0.1
"""Bits by which I(X;T) must fall from its greatest value, beyond noise, to count as compression."""
ACTIVATIONS = ("ReLU", "tanh")
_EPOCHS_DRAWN = 6

Floats = NDArray[np.float64]
"""Courses over training: arrays seeds × layers × epochs, or seeds × epochs. Results have one number for each seed."""

# --- figure 2 ---


def drift(ratios: Floats) -> Floats:
    """Decades from the next to last tenth of a ratio's course to its last; seeds × epochs."""
    return np.array([abs(_level(each, 0.9, 1.0) - _level(each, 0.8, 0.9)) for each in map(_decades, ratios)])


def settled_at(ratios: Floats) -> Floats:
    """Fraction of training after which every layer stays within a quarter decade of its last level, smoothed."""
    return np.array([max(map(_settled, map(_decades, layers))) for layers in ratios])


def spread(ratios: Floats) -> Floats:
    """Decades between the largest and the smallest last level of the hidden layers, which are all but the last."""
    ends = [[_level(_decades(each), 0.9, 1.0) for each in layers[:-1]] for layers in ratios]
    return np.array([max(each) - min(each) for each in ends])


def least_other_movement(ratios: Floats) -> Floats:
    """Decades by which the hidden layer that moves least moves more than the last layer, from first to last level."""
    moved = [[abs(_level(c, 0.0, 0.05) - _level(c, 0.9, 1.0)) for c in map(_decades, layers)] for layers in ratios]
    return np.array([min(each[:-1]) - each[-1] for each in moved])


def _decades(course: Floats) -> Floats:
    """log10 of a ratio, without values that are zero or not measured."""
    known: Floats = np.log10(course[course > 0])
    return known


def _level(course: Floats, start: float, stop: float) -> float:
    """Mean over a part of training, such as from 0.9 to 1.0."""
    first = int(start * len(course))
    part = course[first : max(int(stop * len(course)), first + 1)]
    return float(part.mean()) if len(part) else math.nan


def _settled(course: Floats) -> float:
    smooth = np.array([course[max(0, at - 2) : at + 3].mean() for at in range(len(course))])
    away = np.flatnonzero(np.abs(smooth - _level(course, 0.9, 1.0)) > NEAR)
    return float(away[-1] + 1) / len(course) if len(away) else 0.0


SNR = select("gradient_snr")
SETTLED_AT = SNR.apply(settled_at, "layer", "epoch", unit="fraction")
SPREAD = SNR.apply(spread, "layer", "epoch", unit="decades")


_COMPARED = (
    (
        "with batch normalisation the ratios settle sooner.",
        SETTLED_AT,
        "fraction of training until all layers stay within a quarter decade of their last level",
    ),
    (
        "layers end at different levels, which collapse with batch normalisation.",
        SPREAD,
        "spread of the hidden layers' last levels",
    ),
)
"""What batch normalisation reduces: the claim, the quantity and its name."""


def _gradient_claims(_: GradientConfig) -> list[Claim]:
    claim = partial(Claim, place="Figure 2, p. 6")
    networks = [*ACTIVATIONS, *(f"{plain}, batch norm" for plain in ACTIVATIONS)]
    constant = [
        claim(
            f"{network}: the ratio of every layer approaches a constant.",
            left=SNR.at(model=network).apply(drift, "epoch", unit="decades"),
            op="<",
            right=SETTLED,
            over=("layer",),
            about="movement between the last two tenths of training",
        )
        for network in networks
    ]
    compared = [
        claim(
            f"{plain}: {text}",
            left=quantity.at(model=plain),
            right=quantity.at(model=f"{plain}, batch norm"),
            about=f"{about}, without batch normalisation less with it",
        )
        for text, quantity, about in _COMPARED
        for plain in ACTIVATIONS
    ]
    last = [
        claim(
            f"{plain}, without batch normalisation: the last layer's ratio falls least.",
            left=SNR.at(model=plain).apply(least_other_movement, "layer", "epoch", unit="decades"),
            about="movement of the hidden layer that moves least, less that of the last layer",
        )
        for plain in ACTIVATIONS
    ]
    return [*constant, *compared, *last]


def _gradient_blocks(config: GradientConfig) -> list[Block]:
    literal = "" if config.normalize_noise else ", noise as printed"
    return [
        Curves(
            title="Signal-to-noise ratio of the gradient",
            reading="Seed 0. Layers are counted from the input.",
            y=SNR.log10(),
            x="epoch",
            lines=("layer",),
            panels=("model",),
            y_label=f"log10 of the ratio{literal}",
            seed=0,
        ),
        Pivot(
            title="When ratios settle, and where",
            reading="Settled: from this fraction of training on every layer stays within a quarter decade of its level "
            "in the last tenth of training. Spread: decades between the hidden layers' last levels.",
            rows=("model",),
            columns={"test accuracy": select("test_accuracy"), "settled": SETTLED_AT, "spread": SPREAD},
        ),
    ]


# --- figure 3 ---


def fall(courses: Floats) -> Floats:
    """From the greatest mean over a tenth of a course to that over its last tenth, along the last axis; at least 0."""
    width = max(1, courses.shape[-1] // WINDOWS)
    means = np.lib.stride_tricks.sliding_window_view(courses, width, axis=-1).mean(-1)
    fallen: Floats = means.max(-1) - means[..., -1]
    return fallen


def largest_falls(courses: Floats) -> Floats:
    """:func:`fall` of each seed, in the layer that falls most."""
    largest: Floats = fall(courses).max(-1)
    return largest


def net_falls(courses: Floats) -> Floats:
    """:func:`largest_falls` less those of noise alone, of either sign; NaN for a single seed, which shows no noise.

    The greatest value of a noisy course exceeds its last values even if nothing falls, and the largest fall of several
    layers does so even more. Noise is the seed's difference from the mean over seeds: it has the noise's size and
    autocorrelation, and no trend that all seeds share. Real differences between seeds count as noise. If no layer's
    expected course falls, and the noise is as likely as its negative, the expectation is at most 0.
    """
    seeds = len(courses)
    if seeds < 2:
        return np.full(seeds, np.nan)
    noise = (courses - courses.mean(0)) * math.sqrt(seeds / (seeds - 1))
    net: Floats = largest_falls(courses) - (largest_falls(noise) + largest_falls(-noise)) / 2
    return net


def last_tenth(courses: Floats) -> Floats:
    """Mean over the last tenth of a course, along the last axis."""
    mean: Floats = courses[..., -max(1, courses.shape[-1] // WINDOWS) :].mean(-1)
    return mean


def net_rise(courses: Floats) -> Floats:
    """By how much a course rises from its first to its last value, less its fall from the greatest to the end."""
    fallen = courses.max(-1) - last_tenth(courses)
    rise: Floats = courses[..., -1] - courses[..., 0] - fallen
    return rise


I_XT, I_TY = (select(name).apply(last_tenth, "epoch") for name in ("i_xt", "i_ty"))
"""At the end of training."""


def _plane_claims(config: PlaneConfig) -> list[Claim]:
    claim, last = partial(Claim, place="Figure 3, p. 7"), len(config.hidden)

    def course(labels: str) -> Select:
        return select("i_xt", labels=labels, layer=tuple(range(1, last + 1)))  # without the logits

    def more_with_random_labels(quantity: Quantity) -> Quantity:
        at_end = quantity.at(layer=last)
        return at_end.at(labels="random") - at_end.at(labels="original")

    return [
        claim(
            "On the original labels there is a phase of compression: I(X;T) of a hidden layer falls again.",
            left=course("original").apply(net_falls, "layer", "epoch"),
            right=COMPRESSED,
            about="fall of I(X;T) from its greatest value, beyond that of noise alone, in the layer where it falls "
            "most",
        ),
        claim(
            "On random labels there is almost none.",
            left=course("random").apply(largest_falls, "layer", "epoch"),
            op="<",
            right=COMPRESSED,
            about="fall of I(X;T) from its greatest value, noise included, in the layer where it falls most",
            refuted_by=Comparison(
                left=course("random").apply(net_falls, "layer", "epoch"),
                right=COMPRESSED,
                about="that fall beyond noise alone",
            ),
        ),
        claim(
            "Random labels are memorised slowly: I(T;Y) rises monotonically.",
            left=select("i_ty", labels="random", layer=last).apply(net_rise, "epoch"),
            about="rise of I(T;Y) in the last hidden layer, less its fall from the greatest value",
        ),
        claim(
            "Random labels leave more of the image in the last hidden layer: the degree of memorisation is positive.",
            left=more_with_random_labels(I_XT),
            about="I(X;T) at the end with random labels less that with the original ones",
        ),
        claim(
            "Random labels are memorised more also relative to the optimum of the information bottleneck.",
            left=more_with_random_labels(I_XT - I_TY),
            about="I(X;T) − I(T;Y) at the end with random labels less that with the original ones",
            place="Section 4.2, p. 6",
        ),
    ]


def _plane_blocks(config: PlaneConfig) -> list[Block]:
    count = max(int(config.training["epochs"]) // config.every, 1)
    places = sorted({round(at * (count - 1) / (_EPOCHS_DRAWN - 1)) for at in range(_EPOCHS_DRAWN)})
    drawn = [(place + 1) * config.every for place in places]
    return [
        _plane("Course in the information plane", "A line a layer, over training.", "epoch", ("layer",)),
        _plane(
            "The information plane at some epochs", "A point a layer, a colour an epoch.", "layer", ("epoch",), drawn
        ),
        Pivot(
            title="Where layers end",
            reading="Mean over the last tenth of training, from {samples:,} training images: I(X;T) is binned, and at "
            "most the logarithm of their number. Memorisation: the distance of I(X;T) from the least that a code needs "
            "with as much information on the label, which is I(T;Y), since labels follow from images.",
            rows=("labels", "layer"),
            columns={"I(X;T)": I_XT, "I(T;Y)": I_TY, "memorisation": I_XT - I_TY},
        ),
        Pivot(
            title="Entropies and accuracies",
            reading="The sum of the pixels' entropies bounds H(X), and with it memorisation: H(X) − I(T;Y).",
            rows=("labels",),
            columns={
                "H(Y)": select("label_entropy"),
                "pixels' entropies": select("pixel_entropy"),
                "train accuracy": select("train_accuracy"),
                "test accuracy": select("test_accuracy"),
            },
        ),
    ]


def _plane(title: str, reading: str, along: str, lines: tuple[str, ...], epochs: Sequence[int] = ()) -> Curves:
    at = {"epoch": tuple(epochs)} if epochs else {}
    return Curves(
        title=title,
        reading=f"Seed 0. {reading} Layers are counted from the input; the last is the logits.",
        y=select("i_ty", **at),
        x=select("i_xt", **at),
        along=along,
        lines=lines,
        panels=("labels",),
        x_label="I(X;T), bits",
        y_label="I(T;Y), bits",
        seed=0,
        style="points" if epochs else "line",
    )


STUDIES = (
    Study(
        name="rate-distortion/figure-2",
        title="Figure 2: the gradient's signal-to-noise ratio",
        question="Does the stochastic gradient's signal-to-noise ratio settle, when, and at one level for all layers?",
        config=GradientConfig,
        measure="experiments:gradients",
        claims=_gradient_claims,
        blocks=_gradient_blocks,
    ),
    Study(
        name="rate-distortion/figure-3",
        title="Figure 3: the information plane",
        question="Does a network compress its images once it has fitted their labels, and what if labels are random?",
        config=PlaneConfig,
        measure="experiments:plane",
        claims=_plane_claims,
        blocks=_plane_blocks,
        names={"original": "original labels", "random": "random labels"},
    ),
)
