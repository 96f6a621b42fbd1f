"""Figure 2: what the information elimination does to representations under a label hypothesis.

Appendix D argues with the Fisher information of the prediction about the image: compression should help against small
perturbations. The models are those of table 1.
"""

from __future__ import annotations

from functools import partial

from isthmus.studies.blocks import Block, Curves, Pivot, Scatter
from isthmus.studies.claims import Claim
from isthmus.studies.guess_first.configs import RepresentationsConfig
from isthmus.studies.guess_first.robustness import CLEAN, NAMES
from isthmus.studies.quantities import Quantity, select
from isthmus.studies.study import Study

PAIRS = (("C-DV", "C-DV-IE"), ("C-JS", "C-JS-IE"))
ELIMINATED = tuple(eliminated for _, eliminated in PAIRS)
ABOVE_CHANCE = 0.1
"""A probe must exceed chance by more to have predicted anything."""
RECOGNISED = 0.5
"""A hypothesis's own images are recognised if the probe's recall is higher."""

PROBE = select("probe_accuracy")
RECALL = select("own_class_recall")
FISHER = select("log_fisher_largest")


_FALLS: tuple[tuple[str, Quantity, str, str], ...] = (
    (
        "The elimination makes representations of {plain} less different between labels, by MMD².",
        select("mmd2_sum"),
        "sum of MMD² over hypotheses, unbiased",
        "Figure 2",
    ),
    (
        "It leaves a linear probe less of the true label: {eliminated} against {plain}.",
        PROBE.mean("hypothesis"),
        "accuracy of a linear probe, mean over hypotheses",
        "Figure 2",
    ),
    (
        "As appendix D expects, a small perturbation moves the prediction of {eliminated} less than that of {plain}.",
        FISHER,
        "ln of the largest eigenvalue of the prediction's Fisher information about the image, mean over images",
        "Appendix D",
    ),
)
"""What the elimination reduces: the claim, the quantity, its name, and where the paper claims it."""


def _claims(_: RepresentationsConfig) -> list[Claim]:
    falls = [
        Claim(
            text.format(plain=plain, eliminated=eliminated),
            left=quantity.at(model=plain),
            right=quantity.at(model=eliminated),
            about=f"{about}: {plain} less {eliminated}",
            of_models=True,
            place=place,
        )
        for text, quantity, about, place in _FALLS
        for plain, eliminated in PAIRS
    ]
    return [
        *falls,
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


_under_each = partial(Curves, x="hypothesis", lines=("model",), interval=True, style="points")
_BLOCKS: tuple[Block, ...] = (
    Scatter(
        title="Projection",
        reading="At most {shown:,} test images, seed 0.",
        panels=("model",),
        x_label="first principal component",
        y_label="second principal component",
    ),
    _under_each(title="MMD² under each hypothesis, unbiased", y=select("mmd2"), y_label="MMD²"),
    _under_each(
        title="Accuracy of a linear probe for the true label",
        reading="Means over seeds. Chance is the accuracy of the best constant prediction, in the table below.",
        y=PROBE,
        y_label="accuracy",
    ),
    Pivot(
        title="Sums and means over hypotheses",
        reading="MMD² is between images of the hypothesis's class and the rest, with a Gaussian kernel as wide as the "
        "median distance; unbiased, biased, and biased with labels shuffled: its value without information. The "
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
