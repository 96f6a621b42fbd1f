"""Figures 4, 5, 6 and 7: prototypes, noise, sphere packing and transfer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from isthmus.core.display import Figure
from isthmus.core.types import Coordinate
from isthmus.metrics import Bin
from isthmus.report.sections.common import bin_series, share_series
from isthmus.studies.blocks import Block, Curves, Pictures, Pivot, Scatter
from isthmus.studies.claims import Claim, Comparison
from isthmus.studies.paper_values import paper_value
from isthmus.studies.quantities import Quantity, Select, select
from isthmus.studies.rate_distortion import weight_decay
from isthmus.studies.rate_distortion.configs import MODELS, NoiseConfig, PrototypesConfig, SphereConfig, TransferConfig
from isthmus.studies.rate_distortion.tables import NAMES
from isthmus.studies.study import Study, StudyRecord

STEPS, ABOUT = 100, 2.0
"""The paper has about 100 steps of 0.01; within this factor of it counts."""
LEGIBLE = 0.5
"""More than this fraction of prototypes must be nearest to the mean of their own class; chance is one in ten."""
GONE, NEAR_CHANCE = 0.02, 0.05
"""An accuracy below the first counts as none; one within the second of chance counts as chance."""
RISEN = 0.05
"""Bits by which information must rise again."""
FAR, MATCHED, CALIBRATED = 0.5, 0.05, 0.1
"""An accuracy above the first is far better than chance; mean margin and accuracy within the second are equal; an error
of the margin below the third is small."""
NOISES: dict[Coordinate, str] = {"l2": "ℓ2 steps", "linf": "sign steps", "white": "white noise"}
VARIANTS: dict[Coordinate, str] = {
    "a": "(a) plain",
    "b": "(b) batch norm",
    "c": "(c) batch norm without its scale",
}
SHOTS = {"zero_shot": "zero-shot", "one_shot": "one-shot"}
_AXIS = 3.0  # each way, as the paper draws the two neurons

TEST = select("test_accuracy")


def _prototype_claims(_: PrototypesConfig) -> list[Claim]:
    claim, alike = partial(Claim, place="Figure 4"), select("similarity")
    return [
        claim(
            f"With weight decay (B) full confidence takes about {STEPS} steps.",
            left=select("steps", model="B").log10(),
            op="within",
            right=math.log10(STEPS),
            margin=math.log10(ABOUT),
            about=f"steps of B, as a logarithm (that of {STEPS} is {math.log10(STEPS):g})",
            requires=(Comparison(left=select("steps", model="B"), about="steps of B"),),
        ),
        claim(
            "With weight decay (B) prototypes are legible examples of their class.",
            left=select("own_class", model="B"),
            right=LEGIBLE,
            about="prototypes of B that are nearest to the mean of their own class",
        ),
        claim(
            "They are so because there is less excess capacity: without weight decay (A) they are less like their "
            "class.",
            left=alike.at(model="B"),
            right=alike.at(model="A"),
            about="cosine with the mean of the class, B less A",
        ),
    ]


_PROTOTYPE_BLOCKS: tuple[Block, ...] = (
    Pictures(
        title="Prototypes",
        reading="Seed 0, in {space} images. One image of each class, with the model's prediction and its confidence; "
        "the prototype that grew from noise; the mean of the class's images. Grey is the mean of all images; the "
        "contrast of every picture is stretched to its full range.",
        panels=("model",),
    ),
    Pivot(
        title="From label to image",
        reading="Means over prototypes at full confidence. Likeness: cosine with the mean of the class, both less the "
        "mean of all images; that of an image is with the mean of the others. Distance: from the mean image, relative "
        "to that of images. The paper has about 100 steps for B.",
        rows=("model",),
        columns={
            "test accuracy": TEST,
            "at full confidence": select("reached"),
            "nearest to their class's mean": select("own_class"),
            "steps": select("steps"),
            "relative distance": select("relative_distance"),
            "likeness": select("similarity"),
            "likeness of images": select("image_similarity"),
        },
    ),
    weight_decay.table,
)


def _noise_claims(config: NoiseConfig) -> list[Claim]:
    needs = Comparison(left=TEST, right=config.least_accuracy, over=("model",), about="test accuracy")
    claim = partial(Claim, requires=(needs,), place="Figure 5, p. 8")
    accuracy, bits = select("accuracy").first("snr"), select("information")
    model = "B" if "B" in config.models else config.models[0]

    def lowest(noise: str) -> Quantity:
        return accuracy.at(noise=noise)

    return [
        claim(
            "With batch normalisation (C) less is transmitted than without (B), under every noise at the same ratios.",
            left=select("kept", model="B"),
            right=select("kept", model="C"),
            over=("noise",),
            about="fraction of H(Y) that is transmitted, averaged over the ratios, B less C",
        ),
        *(
            claim(
                f"Unbounded {NOISES[noise]} leave no accuracy, so that no masked gradient explains what is "
                "transmitted.",
                left=lowest(noise),
                op="<",
                right=GONE,
                over=("model",),
                about="accuracy at the lowest ratio",
            )
            for noise in ("l2", "linf")
        ),
        claim(
            "White noise leaves the accuracy of chance.",
            left=lowest("white"),
            op="<",
            right=select("chance"),
            margin=-NEAR_CHANCE,
            over=("model",),
            about="accuracy at the lowest ratio less chance",
        ),
        *(
            claim(
                f"Under {NOISES[noise]} information rises again as the ratio falls to 0: it then comes from the "
                "adversary.",
                left=bits.first("snr").at(model=model, noise=noise),
                right=bits.min("snr").at(model=model, noise=noise),
                margin=RISEN,
                about=f"information that {model} transmits at the lowest ratio, less the least at any ratio",
            )
            for noise in ("l2", "linf")
        ),
    ]


def _over_noise(name: str, y_label: str) -> Curves:
    return Curves(
        title=y_label,
        reading="Means over seeds; noise grows to the left. Noise is added to {space} images.",
        y=select(name),
        x="snr",
        lines=("noise",),
        panels=("model",),
        x_label="signal-to-noise ratio, dB",
        y_label=y_label,
        interval=name == "accuracy",
    )


_NOISE_BLOCKS: tuple[Block, ...] = (
    _over_noise("information", "I(T;Y), bits"),
    _over_noise("accuracy", "accuracy"),
    Pivot(
        title="Fraction of the labels' information that is kept",
        reading="I(T;Y) as a fraction of H(Y), averaged over ratios from {low:g} to {high:g} dB; at each ratio the "
        "least value at this or any higher ratio counts.",
        rows=("model",),
        columns={
            "test accuracy": TEST,
            "H(Y)": select("label_entropy"),
            **{name: select("kept", noise=noise) for noise, name in NOISES.items()},
        },
    ),
    weight_decay.table,
)


def _sphere_claims(config: SphereConfig) -> list[Claim]:
    claim = partial(Claim, place="Figure 6")
    power, round_, capacity = (select(name) for name in ("power", "roundness", "capacity"))
    of_a = power.at(model="a")

    def more(first: str, second: str, quantity: Select) -> Quantity:
        at_end = quantity.last("epoch")
        return at_end.at(model=first) - at_end.at(model=second)

    return [
        claim(
            "The data first spread, then power is reduced.",
            left=of_a.max("epoch").log10(),
            right=of_a.first("epoch").log10(),
            about="rise of the power of (a) from the untrained network to its greatest value",
            also=(
                Comparison(
                    left=of_a.max("epoch").log10(),
                    right=of_a.last("epoch").log10(),
                    about="its fall from there to the end",
                ),
            ),
        ),
        claim(
            "Clusters become more circular.",
            left=round_.at(model="a").last("epoch"),
            right=round_.at(model="a", epoch=config.epochs[1]),
            about=f"roundness of the clusters of (a) at the end less that at epoch {config.epochs[1]:,}",
        ),
        claim(
            "Batch normalisation leaves more excess capacity.",
            left=more("b", "a", capacity),
            about="capacity of the layer as a Gaussian channel at the end, (b) less (a)",
        ),
        claim(
            "Without the scale clusters are more circular than with it.",
            left=more("c", "b", round_),
            about="roundness of the clusters at the end, (c) less (b)",
        ),
        claim(
            "Without the scale the excess capacity remains.",
            left=more("c", "a", capacity),
            about="capacity of the layer as a Gaussian channel at the end, (c) less (a)",
        ),
    ]


_SPHERE_BLOCKS: tuple[Block, ...] = (
    Scatter(
        title="Codes",
        reading="Seed 0, {drawn:,} training images, one colour for each class.",
        panels=("model",),
        x_label="first neuron",
        y_label="second neuron",
        at_least=_AXIS,
    ),
    Pivot(
        title="Power and capacity of the layer",
        reading="Power: variance of all codes, a neuron; within: variance within classes, a neuron. Capacity: of a "
        "Gaussian channel with these, in two uses; ten labels need 3.32 bits. Round: the smaller width of a cluster "
        "over its larger.",
        rows=("model", "epoch"),
        columns={
            "accuracy": select("accuracy"),
            "power": select("power"),
            "within": select("within_class_power"),
            "capacity": select("capacity"),
            "round": select("roundness"),
            "standard deviation of the noise": select("noise_std"),
        },
    ),
)


def _transfer_claims(config: TransferConfig) -> list[Claim]:
    claim = partial(Claim, place="Figure 7")
    model = next(each for each in ("B+", "B", *config.models) if each in config.models)

    def of(name: str) -> Quantity:
        return select(name, model=model)

    zero, one = (paper_value("rate_distortion", "figure-7", f"{shot} accuracy", model="B+") for shot in SHOTS.values())
    return [
        claim(
            f"Zero-shot, model {model} classifies the other digits far better than chance ({zero:.1%} in the paper).",
            left=of("zero_shot_accuracy"),
            right=FAR,
            about="zero-shot accuracy",
        ),
        claim(
            f"One example of each class makes it more accurate (by {100 * (one - zero):.1f} points in the paper).",
            left=of("one_shot_gain"),
            about="one-shot less zero-shot accuracy",
        ),
        claim(
            "Zero-shot, the mean margin is the accuracy.",
            left=of("zero_shot_overconfidence"),
            op="within",
            margin=MATCHED,
            about="zero-shot mean margin less accuracy",
        ),
        claim(
            "Margins are reasonably well calibrated, zero- and one-shot.",
            left=of("zero_shot_margin_error"),
            op="<",
            right=CALIBRATED,
            about="expected calibration error of the margin, zero-shot",
            also=(Comparison(left=of("one_shot_margin_error"), op="<", right=CALIBRATED, about="the same, one-shot"),),
        ),
        claim(
            "One example of each class takes over-confidence away, down to a little under-confidence.",
            left=of("one_shot_overconfidence"),
            op="<",
            right=of("zero_shot_overconfidence"),
            about="mean margin less accuracy, one-shot less zero-shot",
            also=(Comparison(left=of("one_shot_overconfidence"), op="<", about="one-shot mean margin less accuracy"),),
            place="Appendix C",
        ),
    ]


def _margins(record: StudyRecord, _: TransferConfig) -> Iterator[Figure]:
    """Margins of each model of seed 0, and accuracy over them."""
    found = {str(coords["model"]): content for coords, content in record.details("bins")}
    for shot, name in SHOTS.items():
        bins = {
            NAMES[model]: [Bin.model_validate(one) for one in found[model][shot]]
            for model in MODELS
            if shot in found.get(model, {})
        }
        for model, own in bins.items():
            yield Figure(
                title=f"Margins, {name}: {model}",
                reading="Seed 0.",
                x_label="margin: the largest probability less the second",
                y_label="fraction of the images",
                series=(share_series(model, own),),
                x_range=(0.0, 1.0),
            )
        if bins:
            yield Figure(
                title=f"Accuracy over the margin, {name}",
                reading="Seed 0. Above the diagonal margins are too small, below it too large.",
                x_label="mean margin of the bin",
                y_label="accuracy in the bin",
                series=tuple(bin_series(model, own) for model, own in bins.items()),
                x_range=(0.0, 1.0),
                y_range=(0.0, 1.0),
                identity=True,
            )


_MARGINS = {"accuracy": "accuracy", "margin": "mean margin", "margin_error": "error of the margin"}
_TRANSFER_BLOCKS: tuple[Block, ...] = (
    _margins,
    Pivot(
        title="On another data set",
        reading="One-shot: means over {draws} copies of the model, each adapted in {steps} steps to a different "
        "example of each class.",
        rows=("model",),
        columns={
            "test accuracy": TEST,
            **{
                f"{name} {title}": select(f"{shot}_{metric}")
                for shot, name in SHOTS.items()
                for metric, title in _MARGINS.items()
            },
        },
        paper="figure-7",
    ),
    weight_decay.table,
)

STUDIES = (
    Study(
        name="rate-distortion/figure-4",
        title="Figure 4: from label to image",
        question="Which images does a network assign to a class with full confidence, with weight decay, with batch "
        "norm and without either?",
        config=PrototypesConfig,
        measure="image_experiments:prototypes",
        claims=_prototype_claims,
        blocks=_PROTOTYPE_BLOCKS,
        names=NAMES,
    ),
    Study(
        name="rate-distortion/figure-5",
        title="Figure 5: robustness to noise",
        question="How does the information about the label fall as the noise in the image grows, with weight decay and "
        "with batch norm?",
        config=NoiseConfig,
        measure="image_experiments:noise",
        claims=_noise_claims,
        blocks=_NOISE_BLOCKS,
        names={**NAMES, **NOISES},
    ),
    Study(
        name="rate-distortion/figure-6",
        title="Figure 6: sphere packing in two neurons",
        question="How does a layer of two neurons separate the classes under an information bottleneck and weight "
        "decay?",
        config=SphereConfig,
        measure="experiments:spheres",
        claims=_sphere_claims,
        blocks=_SPHERE_BLOCKS,
        names=VARIANTS,
    ),
    Study(
        name="rate-distortion/figure-7",
        title="Figure 7: transfer",
        question="How accurate is a network on digits of another kind, zero-shot and after one example of each, and "
        "are its margins calibrated?",
        config=TransferConfig,
        measure="image_experiments:transfer",
        claims=_transfer_claims,
        blocks=_TRANSFER_BLOCKS,
        names=NAMES,
    ),
)
