"""Figure 2: what the information elimination does to representations under a label hypothesis.

The Fisher information of the prediction about the image is what appendix D explains by: compression should help against
small perturbations. The models are those of table 1.
"""

from __future__ import annotations

from isthmus.studies.blocks import Block, Curves, Pivot, Scatter
from isthmus.studies.claims import Claim
from isthmus.studies.guess_first.configs import RepresentationsConfig
from isthmus.studies.guess_first.robustness import CLEAN, NAMES
from isthmus.studies.quantities import Quantity, select
from isthmus.studies.study import Study

PAIRS = (("C-DV", "C-DV-IE"), ("C-JS", "C-JS-IE"))
ELIMINATED = ("C-DV-IE", "C-JS-IE")
ABOVE_CHANCE = 0.1
"""A probe must exceed chance by more to have predicted anything."""
RECOGNISED = 0.5
"""A hypothesis's own images are recognised if the probe's recall is higher."""

MMD2 = select("mmd2")
PROBE = select("probe_accuracy")
RECALL = select("own_class_recall")
FISHER = select("log_fisher_largest")


def _claims(_: RepresentationsConfig) -> list[Claim]:
    return [
        *(
            _falls(
                f"The elimination makes representations of {plain} less different between labels, by MMD².",
                select("mmd2_sum"),
                plain,
                eliminated,
                "sum of MMD² over hypotheses, unbiased",
            )
            for plain, eliminated in PAIRS
        ),
        *(
            _falls(
                f"It leaves a linear probe less of the true label: {eliminated} against {plain}.",
                PROBE.mean("hypothesis"),
                plain,
                eliminated,
                "accuracy of a linear probe, mean over hypotheses",
            )
            for plain, eliminated in PAIRS
        ),
        *(
            _falls(
                f"As appendix D expects, a small perturbation moves the prediction of {eliminated} less than that of "
                f"{plain}.",
                FISHER,
                plain,
                eliminated,
                "ln of the largest eigenvalue of the prediction's Fisher information about the image, mean over images",
                "Appendix D",
            )
            for plain, eliminated in PAIRS
        ),
        Claim(
            "Ours: even so, a linear probe predicts the true label under every hypothesis of every model measured.",
            left=PROBE.at(model=ELIMINATED),
            right=select("chance", model=ELIMINATED),
            margin=ABOVE_CHANCE,
            over=("model", "seed", "hypothesis"),
            about="accuracy of a linear probe less chance",
            least_seeds=1,
        ),
        Claim(
            "Ours: whether the hypothesis is true can still be predicted, in every model measured.",
            left=RECALL.at(model=ELIMINATED),
            right=RECOGNISED,
            over=("model", "seed", "hypothesis"),
            about="fraction of a hypothesis's own images that the probe recognises, which a classifier has to keep, "
            "since its score is a function of the representation",
            least_seeds=1,
        ),
    ]


def _falls(text: str, quantity: Quantity, plain: str, eliminated: str, about: str, place: str = "Figure 2") -> Claim:
    return Claim(
        text,
        left=quantity.at(model=plain),
        right=quantity.at(model=eliminated),
        about=f"{about}: {plain} less {eliminated}",
        of_models=True,
        place=place,
    )


def _under_each(title: str, quantity: Quantity, y_label: str) -> Curves:
    return Curves(
        title=title,
        reading="Means over seeds. Chance is the accuracy of the best constant prediction, in the table below."
        if y_label == "accuracy"
        else "Means over seeds.",
        y=quantity,
        x="hypothesis",
        lines=("model",),
        x_label="hypothesis",
        y_label=y_label,
        interval=True,
        style="points",
    )


_BLOCKS: tuple[Block, ...] = (
    Scatter(
        title="Projection",
        reading="At most {shown:,} test images, seed 0.",
        panels=("model",),
        x_label="first principal component",
        y_label="second principal component",
    ),
    _under_each("MMD² under each hypothesis, unbiased", MMD2, "MMD²"),
    _under_each("Accuracy of a linear probe for the true label", PROBE, "accuracy"),
    Pivot(
        title="Sums and means over hypotheses",
        reading="MMD² is between images of the hypothesis's class and the rest, with a Gaussian kernel as wide as the "
        "median distance; unbiased, biased, and biased with labels shuffled: its value if no information is left. The "
        "probe is a logistic regression, fitted on one half of the images and evaluated on the other.",
        rows=("model",),
        columns={
            "clean": CLEAN,
            "Σ MMD², unbiased": select("mmd2_sum"),
            "Σ MMD², biased": select("mmd2_biased_sum"),
            "biased, shuffled": select("mmd2_shuffled_sum"),
            "probe's accuracy": PROBE.mean("hypothesis"),
            "chance": select("chance").mean("hypothesis"),
            "own images recognised": RECALL.mean("hypothesis"),
        },
    ),
    Pivot(
        title="Fisher information of the prediction about the image",
        reading="J(x) is the Fisher information of p(y|x) about the image, in nats per squared unit of ℓ2 distance "
        "between images in [0, 1]: a small perturbation of size δ in direction u moves the prediction by a KL "
        "divergence of ½δ²·uᵀJu (appendix D). Logarithms, as lemma D.1 bounds ½·E[ln J] by the mutual information. A "
        "confident model has little of it, and larger steps may change its prediction all the same.",
        rows=("model",),
        columns={
            "ln of the trace, mean over images": select("log_fisher_trace"),
            "ln of the largest eigenvalue, mean over images": FISHER,
        },
    ),
)

STUDIES = (
    Study(
        name="guess-first/figure-2",
        title="Figure 2: label information under a hypothesis, with and without elimination",
        question="How much label information does the information elimination leave in representations under a label "
        "hypothesis?",
        config=RepresentationsConfig,
        measure="representations:representations",
        claims=_claims,
        blocks=_BLOCKS,
        names=NAMES,
    ),
)
