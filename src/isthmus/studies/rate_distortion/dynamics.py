"""Figures 2 and 3: the gradient's signal-to-noise ratio, and the information plane, over training."""

from __future__ import annotations

from collections.abc import Sequence

from isthmus.studies.blocks import Block, Curves, Pivot
from isthmus.studies.claims import Claim, Comparison
from isthmus.studies.quantities import Quantity, Select, select
from isthmus.studies.rate_distortion.configs import GradientConfig, PlaneConfig
from isthmus.studies.rate_distortion.courses import (
    drift,
    largest_falls,
    last_tenth,
    least_other_movement,
    net_falls,
    net_rise,
    settled_at,
    spread,
)
from isthmus.studies.study import Study

SETTLED = 0.05
"""Decades by which a ratio may still move from the next to last tenth of training to the last, to be constant."""
COMPRESSED = 0.1
"""Bits by which I(X;T) must fall from its greatest value, beyond noise, to count as compression."""
NETWORKS = ("ReLU", "tanh", "ReLU, batch norm", "tanh, batch norm")
_EPOCHS_DRAWN = 6

SNR = select("gradient_snr")
SETTLED_AT = SNR.apply(settled_at, "layer", "epoch", unit="fraction")
SPREAD = SNR.apply(spread, "layer", "epoch", unit="decades")


def _gradient_claims(_: GradientConfig) -> list[Claim]:
    place = "Figure 2, p. 6"
    pairs = [(plain, f"{plain}, batch norm") for plain in ("ReLU", "tanh")]
    return [
        *(
            Claim(
                f"{network}: the ratio of every layer approaches a constant.",
                left=SNR.at(model=network).apply(drift, "epoch", unit="decades"),
                op="<",
                right=SETTLED,
                over=("layer",),
                about="movement between the last two tenths of training",
                place=place,
            )
            for network in NETWORKS
        ),
        *(
            Claim(
                f"{plain}: with batch normalisation the ratios settle sooner.",
                left=SETTLED_AT.at(model=plain),
                right=SETTLED_AT.at(model=normed),
                about="fraction of training until all layers stay within a quarter decade of their last level, without "
                "batch normalisation less with it",
                place=place,
            )
            for plain, normed in pairs
        ),
        *(
            Claim(
                f"{plain}: layers end at different levels, which collapse with batch normalisation.",
                left=SPREAD.at(model=plain),
                right=SPREAD.at(model=normed),
                about="spread of the hidden layers' last levels, without batch normalisation less with it",
                place=place,
            )
            for plain, normed in pairs
        ),
        *(
            Claim(
                f"{plain}, without batch normalisation: the last layer's ratio falls least.",
                left=SNR.at(model=plain).apply(least_other_movement, "layer", "epoch", unit="decades"),
                about="movement of the hidden layer that moves least, less that of the last layer",
                place=place,
            )
            for plain, _ in pairs
        ),
    ]


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
            x_label="epoch",
            y_label=f"log10 of the ratio{literal}",
            seed=0,
        ),
        Pivot(
            title="When ratios settle, and where",
            reading="Settled: from this fraction of training on every layer stays within a quarter decade of its "
            "level in "
            "the last tenth of training. Spread: decades between the hidden layers' last levels.",
            rows=("model",),
            columns={"test accuracy": select("test_accuracy"), "settled": SETTLED_AT, "spread": SPREAD},
        ),
    ]


def _hidden(config: PlaneConfig) -> tuple[int, ...]:
    """The hidden layers; the last of all layers is the logits."""
    return tuple(range(1, len(config.hidden) + 1))


def _end(name: str) -> Quantity:
    return select(name).apply(last_tenth, "epoch")


def _plane_claims(config: PlaneConfig) -> list[Claim]:
    place, last = "Figure 3, p. 7", len(config.hidden)

    def course(labels: str) -> Select:
        return select("i_xt", labels=labels, layer=_hidden(config))

    def more_with_random_labels(quantity: Quantity) -> Quantity:
        at_end = quantity.at(layer=last)
        return at_end.at(labels="random") - at_end.at(labels="original")

    return [
        Claim(
            "On the original labels there is a phase of compression: I(X;T) of a hidden layer falls again.",
            left=course("original").apply(net_falls, "layer", "epoch"),
            right=COMPRESSED,
            about="fall of I(X;T) from its greatest value, beyond that of noise alone, in the layer where it falls "
            "most",
            place=place,
        ),
        Claim(
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
            place=place,
        ),
        Claim(
            "Random labels are memorised slowly: I(T;Y) rises monotonically.",
            left=select("i_ty", labels="random", layer=last).apply(net_rise, "epoch"),
            about="rise of I(T;Y) in the last hidden layer, less its fall from the greatest value",
            place=place,
        ),
        Claim(
            "Random labels leave more of the image in the last hidden layer: the degree of memorisation is positive.",
            left=more_with_random_labels(_end("i_xt")),
            about="I(X;T) at the end with random labels less that with the original ones",
            place=place,
        ),
        Claim(
            "Random labels are memorised more also relative to the optimum of the information bottleneck.",
            left=more_with_random_labels(_end("i_xt") - _end("i_ty")),
            about="I(X;T) − I(T;Y) at the end with random labels less that with the original ones",
            place="Section 4.2, p. 6",
        ),
    ]


def _plane_blocks(config: PlaneConfig) -> list[Block]:
    epochs = int(config.training["epochs"])
    count = max(epochs // config.every, 1)
    places = sorted({round(at * (count - 1) / (_EPOCHS_DRAWN - 1)) for at in range(_EPOCHS_DRAWN)})
    drawn: tuple[int, ...] = tuple((place + 1) * config.every for place in places)
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
            columns={
                "I(X;T)": _end("i_xt"),
                "I(T;Y)": _end("i_ty"),
                "memorisation": _end("i_xt") - _end("i_ty"),
            },
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
        measure="isthmus.studies.rate_distortion.experiments:gradients",
        claims=_gradient_claims,
        blocks=_gradient_blocks,
    ),
    Study(
        name="rate-distortion/figure-3",
        title="Figure 3: the information plane",
        question="Does a network compress its images once it has fitted their labels, and what does it do if labels "
        "are "
        "random?",
        config=PlaneConfig,
        measure="isthmus.studies.rate_distortion.experiments:plane",
        claims=_plane_claims,
        blocks=_plane_blocks,
        names={"original": "original labels", "random": "random labels"},
    ),
)
