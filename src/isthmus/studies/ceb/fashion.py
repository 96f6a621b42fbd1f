"""CEB, VIB and deterministic networks on Fashion-MNIST: figure 1, and the memorisation of random labels."""

from __future__ import annotations

import math

from isthmus.core.display import Mark
from isthmus.studies.blocks import Block, Curves, Pivot
from isthmus.studies.ceb.common import NORMS, ROBUST, TEST, choice_table, over_rho, plain
from isthmus.studies.ceb.configs import OBJECTIVES, FashionConfig, RandomLabelsConfig
from isthmus.studies.claims import Claim, Comparison
from isthmus.studies.quantities import Select, select
from isthmus.studies.study import Study

LN_10 = math.log(10)
NEAR, EQUAL = 0.1, 0.2
"""Nats within which a bound counts as ln 10, and two bounds as "nearly the same"."""
SMALL_GAIN, LARGE_LOSS = 0.05, 0.01
"""From ρ = 0 to ρ = −1: the greatest "small" loss of attack success, and the least "large" loss of accuracy."""
ONSET = 40
"""The epoch after which the paper's deterministic networks began to memorise."""
NEVER = 6.0
"""Bottlenecks with a smaller ρ never learned random labels."""
MARGIN = 0.02
"""A training accuracy this far above the best constant prediction counts as memorisation."""

TOP, TRAIN = select("rate_lower_max"), select("train_accuracy")
_FIGURE = "CEB, Figure 1; Entropy, Figure 4"
_TEXT = "CEB, Section 3.1; Entropy, Section 3.1.2"
_LABELS = "Entropy, Section 3.1.5"


def _success(norm: str) -> Select:
    return select("success", mode="mean", attack="targeted pgd", norm=norm)


def _ensemble(norm: str, eps: float) -> Select:
    return ROBUST.at(attack="ensemble", norm=norm, eps=eps)


def _claims(config: FashionConfig) -> list[Claim]:
    ceb, vib = {"objective": "ceb"}, {"objective": "vib"}
    inner = tuple(rho for rho in config.rhos if rho < max(config.rhos)) or config.rhos
    smallest = {"linf": config.ensemble_linf[0], "l2": config.ensemble_l2[0]}
    families = ("ceb", "vib")
    leads = [
        Comparison(
            left=_ensemble(norm, eps).at(objective="ceb", rho=0.0),
            right=plain(_ensemble(norm, eps)),
            about=f"lead in robust accuracy under the ensemble at {NORMS[norm]} {eps:g}",
        )
        for norm, eps in smallest.items()
    ]
    return [
        *(
            Claim(
                f"{OBJECTIVES[name]} is more accurate than the deterministic network.",
                left=TEST.at(objective=name),
                right=plain(TEST),
                over=("rho",),
                every="any",
                about="gain in accuracy",
                place=_FIGURE,
            )
            for name in families
        ),
        Claim(
            "CEB is more accurate than VIB at every ρ.",
            left=TEST.at(**ceb),
            right=TEST.at(**vib),
            over=("rho",),
            about="accuracy of CEB less that of VIB",
            place=_FIGURE,
        ),
        *(
            Claim(
                f"At ρ = 0 the largest lower bound on I(X;Z) that {OBJECTIVES[name]} reached in training is ln 10.",
                left=TOP.at(objective=name, rho=0.0),
                op="within",
                right=LN_10,
                margin=NEAR,
                about="the largest over all steps; the largest of many noisy batches lies above their mean",
                place="CEB, Section 3.1; Entropy, Section 3.1.1",
            )
            for name in families
        ),
        Claim(
            "CEB and VIB reach nearly the same bound on I(X;Z) at each ρ.",
            left=TOP.at(**ceb),
            op="within",
            right=TOP.at(**vib),
            margin=EQUAL,
            over=("rho",),
            about="bound of CEB less that of VIB",
            place=_FIGURE,
        ),
        *(
            Claim(
                f"CEB is more robust than VIB to targeted PGD in {text} at every ρ.",
                left=_success(norm).at(**vib),
                right=_success(norm).at(**ceb),
                over=("rho",),
                about="success of the attack on VIB less that on CEB",
                place=_FIGURE,
            )
            for norm, text in NORMS.items()
        ),
        *(
            Claim(
                f"{OBJECTIVES[name]}'s robustness to targeted PGD in {text} rises as ρ falls.",
                left=_success(norm).at(objective=name).slope("rho"),
                about="rise of the attack's success with ρ, for each unit",
                place=_TEXT,
            )
            for name in families
            for norm, text in NORMS.items()
        ),
        *(
            Claim(
                f"CEB is more robust to targeted PGD in {text} than the deterministic network, at all but the "
                "largest ρ.",
                left=plain(_success(norm)),
                right=_success(norm).at(objective="ceb", rho=inner),
                over=("rho",),
                about="success of the attack on the deterministic network less that on CEB",
                place="Entropy, Section 3.1.2",
            )
            for norm, text in NORMS.items()
        ),
        Claim(
            "From ρ = 0 to −1 CEB gains little robustness and loses much accuracy.",
            left=TEST.at(**ceb, rho=0.0),
            right=TEST.at(**ceb, rho=-1.0),
            margin=LARGE_LOSS,
            about="loss of accuracy",
            also=(
                Comparison(
                    left=_success("linf").at(**ceb, rho=0.0),
                    op="<",
                    right=_success("linf").at(**ceb, rho=-1.0),
                    margin=-SMALL_GAIN,
                    about="loss of success of targeted PGD in ℓ∞",
                ),
            ),
            place=_TEXT,
        ),
        Claim.joint(  # not the papers'
            "What CEB at ρ = 0 gains over the deterministic network survives a strong ensemble.",
            *leads,
        ),
    ]


def _panel(title: str, y_label: str, quantity: Select, level: bool = True, marks: tuple[Mark, ...] = ()) -> Curves:
    levels = {"deterministic": plain(quantity)} if level else {}
    return over_rho(title, quantity.at(objective=("ceb", "vib")), levels, y_label, marks)


def _blocks(config: FashionConfig) -> list[Block]:
    smallest = {"linf": config.ensemble_linf[0], "l2": config.ensemble_l2[0]}
    return [
        _panel("Clean accuracy", "accuracy", TEST),
        _panel("Largest lower bound on I(X;Z) in training", "nats", TOP, False, (Mark("ln 10", y=LN_10),)),
        *(_panel(f"Targeted PGD in {text}, towards trousers", "success", _success(n)) for n, text in NORMS.items()),
        *(
            _panel(f"Suite “{config.ensemble}” at {NORMS[norm]} {eps:g}", "robust accuracy", _ensemble(norm, eps))
            for norm, eps in smallest.items()
        ),
        Pivot(
            title="Means over seeds",
            reading="R and ReX, and I(X;Z) ≥, are means over the batches of the last epoch. Success is the fraction of "
            "the images classified correctly that become trousers. The ensemble's columns are at its smallest ε.",
            rows=("objective", "rho"),
            columns={
                "clean": TEST,
                "I(X;Z) ≥, largest": TOP,
                "I(X;Z) ≥": select("epoch_rate_lower"),
                "R": select("epoch_rate"),
                "ReX": select("epoch_residual"),
                **{f"targeted {text}": _success(norm) for norm, text in NORMS.items()},
                **{f"ensemble {NORMS[norm]}": _ensemble(norm, eps) for norm, eps in smallest.items()},
            },
        ),
        choice_table,
    ]


def _memory_claims(config: RandomLabelsConfig) -> list[Claim]:
    constant = select("constant_accuracy")
    low = tuple(rho for rho in config.rhos if rho < NEVER)
    return [
        Claim(
            "Deterministic networks memorise random labels.",
            left=plain(TRAIN),
            right=plain(constant),
            margin=MARGIN,
            about="training accuracy less that of the best constant prediction",
            place=_LABELS,
        ),
        Claim(
            f"They begin to after about {ONSET} epochs.",
            left=plain(select("onset")),
            right=ONSET / 2,
            about="the first epoch that is surely above chance",
            requires=(
                Comparison(left=plain(select("learned")), right=0.999, about="fraction of the runs that memorise"),
                Comparison(left=plain(select("epochs")), right=ONSET, about="length of training"),
            ),
            place=_LABELS,
        ),
        *(
            Claim(
                f"{OBJECTIVES[name]} with ρ < {NEVER:g} never learns random labels.",
                left=TRAIN.at(objective=name, rho=low),
                op="<",
                right=constant.at(objective=name, rho=low),
                margin=-MARGIN,
                over=("rho",),
                about="training accuracy less that of the best constant prediction",
                place=_LABELS,
            )
            for name in ("ceb", "vib")
            if name in config.families
        ),
    ]


_MEMORY_BLOCKS: tuple[Block, ...] = (
    Curves(
        title="Accuracy on random labels while training",
        reading=f"Means over seeds. The paper's deterministic networks begin to memorise after about {ONSET} epochs.",
        y=select("epoch_accuracy"),
        x="epoch",
        lines=("objective", "rho"),
        level={"chance": select("constant_accuracy", objective="determ", rho=None)},
        x_label="epoch",
        y_label="training accuracy",
        marks=(Mark(f"the paper's onset, about {ONSET}", x=float(ONSET)),),
    ),
    over_rho(
        "Memorised at the end",
        TRAIN.at(objective=("ceb", "vib")),
        {"deterministic": plain(TRAIN), "chance": plain(select("constant_accuracy"))},
        "training accuracy",
        reading="Fraction of the training images whose random label a model predicts after training, in mean mode.",
    ),
    Pivot(
        title="Memorised, and since when",
        reading="Onset: mean over the runs that memorise of the first epoch whose accuracy is surely above the best "
        "constant prediction; memorise: their fraction. On test images with their true labels every model should be at "
        "chance.",
        rows=("objective", "rho"),
        columns={
            "training accuracy": TRAIN,
            "best constant prediction": select("constant_accuracy"),
            "memorise": select("learned"),
            "onset": select("onset"),
            "test accuracy": TEST,
        },
    ),
)

STUDIES = (
    Study(
        name="ceb/fashion",
        title="Figure 1: CEB, VIB and deterministic networks on Fashion-MNIST",
        question="How do accuracy, rate and robustness on Fashion-MNIST depend on ρ, for CEB, VIB and a deterministic "
        "network?",
        config=FashionConfig,
        measure="experiments:fashion",
        claims=_claims,
        blocks=_blocks,
        names=OBJECTIVES,
    ),
    Study(
        name="ceb/random-labels",
        title="Random labels: memorisation if nothing can be learned",
        question="Does a bottleneck keep a classifier from memorising labels that do not depend on the images?",
        config=RandomLabelsConfig,
        measure="experiments:random_labels",
        claims=_memory_claims,
        blocks=_MEMORY_BLOCKS,
        names=OBJECTIVES,
    ),
)
