"""Figures 1, 2, 3, 8 and 9: VIB and CEB on images under FGS, PGD with restarts and AA+MT.

Section 3.1: VIB on MNIST, in mean mode and with 12 samples, beside a deterministic network of the same shape. Section
3.2: CEB and VIB on CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Mapping

from isthmus.core.display import Mark
from isthmus.core.types import Coordinate
from isthmus.studies.blocks import Block, Curves, Pivot
from isthmus.studies.claims import Claim, OtherClaim
from isthmus.studies.closer_look.configs import (
    SHOWN,
    CifarConfig,
    FgsConfig,
    RestartConfig,
    SmallBallConfig,
    VibConfig,
)
from isthmus.studies.image_models import ImageConfig
from isthmus.studies.quantities import Quantity, Select, select
from isthmus.studies.rows import Rows, Wanted
from isthmus.studies.study import Study
from isthmus.studies.verdicts import Verdict

GREY = 0.5
"""From this ε on every image can be made uniformly grey."""
MODES_DIFFER = 0.01
"""Two modes do not give the same results if their accuracies differ by more."""
OVERSTATED = 0.05
"""A single start is misleading if further starts, or the ensemble, break more than this fraction of all images."""
NOTHING, LEFT = 0.05, 0.01
"""A robust accuracy below these is none: of VIB on MNIST, and of a deterministic network on CIFAR-10."""
ADVERSARIALLY_TRAINED = 0.458
"""Accuracy under this PGD that Madry et al. 2018 report for their adversarially trained network."""

NAMES: Mapping[Coordinate, str] = {
    "determ": "deterministic",
    "vib": "VIB",
    "ceb": "CEB",
    "mean": "mean mode",
    "stochastic": "stochastic mode",
    "one_evaluation": "stochastic mode, one evaluation",
    "confident": "stochastic mode, 99% confidence",
}
ROBUST, CLEAN, ZERO = select("robust_accuracy"), select("clean_accuracy"), select("zero_gradients")
_ZERO = (
    "Zero gradients: fraction of queries at which the cross-entropy's gradient is exactly zero in float32, so that the "
    "attack moves nothing."
)


def _claimed(config: ImageConfig) -> list[str]:
    """Modes that claims are judged in: each mode, and the papers' rule."""
    return [*config.modes, *(["one_evaluation"] if "stochastic" in config.modes else [])]


# --- figure 1 ---


def _fgs_claims(config: FgsConfig) -> list[Claim | OtherClaim]:
    modes = _claimed(config)
    claims: list[Claim | OtherClaim] = [
        claim(config, mode) for claim in (_gain, _above_chance, _peak) for mode in modes
    ]
    if {"mean", "stochastic"} <= set(config.modes):
        mean, stochastic = (_vib_under_fgs(config, mode).at(beta=config.best) for mode in ("mean", "stochastic"))
        claims.append(
            Claim(
                "Mean and stochastic mode do not give the same results.",
                left=(mean - stochastic).abs(),
                right=MODES_DIFFER,
                about="difference between mean and stochastic mode, either way",
                place="Section 3.1",
            )
        )
    return claims


def _vib_under_fgs(config: FgsConfig, mode: str) -> Select:
    return ROBUST.at(objective="vib", attack="fgsm", mode=mode, eps=min(config.eps))


def _gain(config: FgsConfig, mode: str) -> Claim:
    return Claim(
        f"VIB with β = {config.best:g} is more accurate under FGS than the deterministic network ({NAMES[mode]}).",
        left=_vib_under_fgs(config, mode).at(beta=config.best),
        right=ROBUST.at(objective="determ", attack="fgsm", mode="mean", eps=min(config.eps)),
        about=f"accuracy at ε = {min(config.eps):g}, VIB less deterministic",
        place="Figure 1",
    )


def _above_chance(config: FgsConfig, mode: str) -> Claim | OtherClaim:
    eps = max(config.eps)
    text = f"It keeps more than chance at ε = {eps:g}, where no classifier can: the attack is too weak ({NAMES[mode]})."
    if eps < GREY:

        def judge(_: Rows) -> tuple[Verdict, str]:
            return Verdict.UNDECIDED, f"ε = {eps:g} does not reach uniform grey; {GREY:g} does."

        return OtherClaim(text, judge, "Figure 1")
    return Claim(
        text,
        left=ROBUST.at(objective="vib", beta=config.best, attack="fgsm", mode=mode, eps=eps),
        right=select("chance", objective="vib", beta=config.best, attack="fgsm", mode="mean"),
        about="accuracy less that of the best constant prediction",
        place="Figure 1",
    )


def _peak(config: FgsConfig, mode: str) -> Claim:
    under = _vib_under_fgs(config, mode)
    return Claim(
        f"Among all β, {config.best:g} has the highest accuracy ({NAMES[mode]}).",
        left=under.at(beta=config.best),
        right=under.at(beta=tuple(beta for beta in config.betas if beta != config.best)),
        over=("beta",),
        about=f"accuracy at ε = {min(config.eps):g} with β = {config.best:g} less that with another",
        place="Figure 1",
    )


def _fgs_blocks(config: FgsConfig) -> list[Block]:
    under = {f"FGS {eps:g}": ROBUST.at(attack="fgsm", eps=eps) for eps in config.eps}
    accuracies = {"Clean images": CLEAN, **{f"FGS, ε = {eps:g}": ROBUST.at(eps=eps) for eps in config.eps}}
    return [
        *(_over_parameter(title, accuracy.at(attack="fgsm"), "vib", "beta") for title, accuracy in accuracies.items()),
        Pivot(
            title="Means over seeds",
            reading=_ZERO,
            rows=("objective", "beta", "mode"),
            columns={"clean": CLEAN, **under, "chance": select("chance"), "zero gradients": ZERO},
        ),
    ]


def _over_parameter(
    title: str, accuracy: Select, objective: str, parameter: str, marks: tuple[Mark, ...] = ()
) -> Curves:
    """Accuracy over the trade-off parameter, beside that of the deterministic network."""
    return Curves(
        title=title,
        reading="Means over seeds that did not collapse.",
        y=accuracy.at(objective=objective),
        x=parameter,
        x_log=parameter == "beta",
        lines=("mode",),
        level={"deterministic": accuracy.at(objective="determ", mode="mean")},
        x_label="log₁₀ β (weight of the rate)" if parameter == "beta" else "ρ",
        y_label="accuracy",
        interval=True,
        marks=marks,
        y_range=(0.0, 1.0),
    )


# --- figures 2 and 8: restarts ---


def _after_all(objective: str, mode: str) -> Quantity:
    return ROBUST.at(objective=objective, attack="pgd", mode=mode).last("restarts")


def _restart_claims(config: RestartConfig) -> list[Claim]:
    own = _worse if isinstance(config, SmallBallConfig) else _to_zero
    modes = _claimed(config)
    return [
        *(own(mode) for mode in modes),
        *(
            _overstated(
                f"A single start overstates VIB's robust accuracy ({NAMES[mode]}).",
                select("broken_by_restarts", objective="vib", mode=mode),
                "Section 3.1",
            )
            for mode in modes
        ),
    ]


def _to_zero(mode: str) -> Claim:
    return Claim(
        f"Restarts drive VIB's robust accuracy to zero ({NAMES[mode]}).",
        left=_after_all("vib", mode),
        op="<",
        right=NOTHING,
        about="accuracy after all starts",
        place="Figure 2",
    )


def _worse(mode: str) -> Claim:
    return Claim(
        f"VIB can be made less robust than the deterministic network ({NAMES[mode]}).",
        left=_after_all("vib", mode),
        op="<",
        right=_after_all("determ", "mean"),
        about="accuracy after all starts, VIB less deterministic",
        place="Figure 8",
    )


def _overstated(text: str, broken: Select, place: str) -> Claim:
    return Claim(text, left=broken, right=OVERSTATED, about="images that only further starts break", place=place)


def _restart_blocks(config: RestartConfig) -> list[Block]:
    return [
        _over_restarts("Robust accuracy over the number of starts", ROBUST.at(attack="pgd"), ("objective", "mode")),
        Pivot(
            title="Means over seeds",
            reading=f"{_ZERO} If there are many, PGD does not move because the cross-entropy is saturated.",
            rows=("objective", "mode"),
            columns={
                "clean": CLEAN,
                **{
                    f"{number} start{'s' * (number > 1)}": ROBUST.at(attack="pgd", restarts=number)
                    for number in (*(number for number in SHOWN if number < config.starts), config.starts)
                },
                "zero gradients": ZERO,
            },
        ),
    ]


def _over_restarts(title: str, accuracy: Select, lines: tuple[str, ...]) -> Curves:
    return Curves(
        title=title,
        reading="Means over seeds, ε = {eps:g}.",
        y=accuracy,
        x="restarts",
        lines=lines,
        x_label="random starts of PGD",
        y_label="accuracy",
        interval=True,
        y_range=(0.0, 1.0),
    )


# --- figures 3 and 9: CIFAR-10 ---


def _cifar_claims(config: CifarConfig) -> list[Claim]:
    """In mean mode."""
    name, reference = config.kind.upper(), f"{config.symbol} = {config.reference:g}"
    ours: dict[str, Wanted] = {"objective": config.kind, "mode": "mean"}
    at_reference: dict[str, Wanted] = {**ours, config.parameter: config.reference}
    plain: dict[str, Wanted] = {"objective": "determ", "mode": "mean", config.parameter: None}
    return [
        Claim(
            "Some deterministic networks are more accurate under a single run of PGD than an adversarially trained "
            "one.",
            left=ROBUST.at(attack="pgd", restarts=1, **plain),
            right=ADVERSARIALLY_TRAINED,
            over=("seed",),
            every="any",
            about="accuracy under a single run",
            least_seeds=1,
            place="Section 3.2",
        ),
        _overstated(
            f"Restarts of PGD reduce the robust accuracy of {name} with {reference} considerably.",
            select("broken_by_restarts", **at_reference),
            "Section 3.2",
        ),
        Claim(
            "Under AA+MT deterministic networks have no robust accuracy.",
            left=ROBUST.at(attack="ensemble", **plain),
            op="<",
            right=LEFT,
            about="accuracy under AA+MT",
            place="Section 3.2",
        ),
        Claim(
            f"A single run of PGD overstates {name} with {reference}.",
            left=ROBUST.at(attack="pgd", restarts=1, **at_reference),
            right=ROBUST.at(attack="ensemble", **at_reference),
            margin=OVERSTATED,
            about="accuracy under a single run less that under AA+MT",
            place="Section 3.2",
        ),
        Claim(
            f"Some {name} models are more accurate than the deterministic ones under AA+MT.",
            left=ROBUST.at(attack="ensemble", **ours),
            right=ROBUST.at(attack="ensemble", **plain).mean_over_seeds(),
            over=(config.parameter, "seed"),
            every="any",
            about="accuracy under AA+MT less the mean of the deterministic networks",
            least_seeds=1,
            place="Section 3.2",
        ),
    ]


def _cifar_blocks(config: CifarConfig) -> list[Block]:
    kind, key = config.kind, config.parameter
    weak, strong = ROBUST.at(attack="pgd", restarts=1), ROBUST.at(attack="ensemble")
    madry = (Mark("adversarially trained (Madry et al.)", y=ADVERSARIALLY_TRAINED),)
    restarts = ROBUST.at(attack="pgd")
    title = f"PGD with restarts, {config.symbol} = {config.reference:g}"
    return [
        _over_parameter("A single run of PGD", weak, kind, key, madry),
        _over_parameter("AA+MT", strong, kind, key),
        _over_restarts(title, restarts.at(objective=kind, **{key: config.reference}), ("objective", "mode")),
        _over_restarts("PGD with restarts", restarts.at(objective=("determ",)), ("objective", "mode")),
        Pivot(
            title="Means over seeds",
            reading=f"Models that collapsed are left out. {_ZERO}",
            rows=("objective", key, "mode"),
            columns={
                "clean": CLEAN.at(attack="ensemble"),
                "PGD, one start": weak,
                "AA+MT": strong,
                "zero gradients": ZERO.at(attack="pgd"),
            },
        ),
    ]


_EXPERIMENTS = "isthmus.studies.closer_look.experiments"
STUDIES = (
    Study(
        name="closer-look/figure-1",
        title="Figure 1: VIB on MNIST under FGS",
        question="How much accuracy does VIB keep on MNIST under the one-step attack, and is that robustness genuine?",
        config=FgsConfig,
        measure=f"{_EXPERIMENTS}:fgs",
        claims=_fgs_claims,
        blocks=_fgs_blocks,
        names=NAMES,
    ),
    Study(
        name="closer-look/figure-2",
        title="Figure 2: VIB on MNIST under PGD with restarts, ε = 0.2",
        question="Does VIB's robustness on MNIST survive PGD with many random starts?",
        config=RestartConfig,
        measure=f"{_EXPERIMENTS}:restarts",
        claims=_restart_claims,
        blocks=_restart_blocks,
        names=NAMES,
    ),
    Study(
        name="closer-look/figure-3",
        title="Figure 3: CEB on CIFAR-10",
        question="How robust is CEB on CIFAR-10: under one run of PGD, with restarts, and under stronger attacks?",
        config=CifarConfig,
        measure=f"{_EXPERIMENTS}:cifar",
        claims=_cifar_claims,
        blocks=_cifar_blocks,
        names=NAMES,
    ),
    Study(
        name="closer-look/figure-8",
        title="Figure 8: VIB on MNIST under PGD with restarts, ε = 0.1",
        question="Is VIB on MNIST even less robust than a deterministic network, once PGD starts often enough?",
        config=SmallBallConfig,
        measure=f"{_EXPERIMENTS}:restarts",
        claims=_restart_claims,
        blocks=_restart_blocks,
        names=NAMES,
    ),
    Study(
        name="closer-look/figure-9",
        title="Figure 9: VIB on CIFAR-10",
        question="How robust is VIB on CIFAR-10: under one run of PGD, with restarts, and under stronger attacks?",
        config=VibConfig,
        measure=f"{_EXPERIMENTS}:cifar",
        claims=_cifar_claims,
        blocks=_cifar_blocks,
        names=NAMES,
    ),
)
