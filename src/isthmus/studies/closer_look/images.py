"""Figures 1, 2, 3, 8 and 9: VIB and CEB on images under FGS, PGD with restarts and AA+MT.

Section 3.1: VIB on MNIST, in mean mode and with 12 samples, beside a deterministic network of the same shape. Section
3.2: CEB and VIB on CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

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
from isthmus.studies.quantities import Select, select
from isthmus.studies.rows import Wanted
from isthmus.studies.study import Study
from isthmus.studies.verdicts import Verdict

GREY = 0.5
"""From this ε on every image can be made uniformly grey."""
MODES_DIFFER = 0.01
"""Two modes do not give the same results if their accuracies differ by more."""
OVERSTATED = 0.05
"""A single start is misleading if further starts, or the ensemble, break more than this fraction of all images."""
NOT_ROBUST_MNIST, NOT_ROBUST_CIFAR = 0.05, 0.01
"""A robust accuracy below these counts as none: of VIB on MNIST, and of a deterministic network on CIFAR-10."""
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
    """Modes that claims are about: each mode, and the papers' rule."""
    return [*config.modes, *(["one_evaluation"] if "stochastic" in config.modes else [])]


def over_parameter(title: str, accuracy: Select, objective: str, parameter: str, **options: Any) -> Curves:
    """Accuracy over the trade-off parameter, beside the deterministic network's; further options are the plot's."""
    usual: dict[str, Any] = {
        "reading": "Means over seeds that did not collapse.",
        "lines": ("mode",),
        "level": {NAMES["determ"]: accuracy.at(objective="determ", mode="mean", beta=None)},
        "x_label": "log₁₀ β (weight of the rate)" if parameter == "beta" else "",
        "y_range": (0.0, 1.0),
    }
    return Curves(
        title=title,
        y=accuracy.at(objective=objective),
        x=parameter,
        x_log=parameter == "beta",
        y_label="accuracy",
        interval=True,
        **usual | options,
    )


# --- figure 1 ---


def _fgs_claims(config: FgsConfig) -> list[Claim | OtherClaim]:
    claim, modes = partial(Claim, place="Figure 1"), _claimed(config)
    best, low, high = config.best, min(config.eps), max(config.eps)
    others = tuple(beta for beta in config.betas if beta != best)

    def vib(mode: str, eps: float) -> Select:
        return ROBUST.at(objective="vib", attack="fgsm", mode=mode, eps=eps)

    gains = [
        claim(
            f"VIB with β = {best:g} is more accurate under FGS than the deterministic network ({NAMES[mode]}).",
            left=vib(mode, low).at(beta=best),
            right=ROBUST.at(objective="determ", attack="fgsm", mode="mean", eps=low),
            about=f"accuracy at ε = {low:g}, VIB less deterministic",
        )
        for mode in modes
    ]
    peaks = [
        claim(
            f"Among all β, {best:g} has the highest accuracy ({NAMES[mode]}).",
            left=vib(mode, low).at(beta=best),
            right=vib(mode, low).at(beta=others),
            over=("beta",),
            about=f"accuracy at ε = {low:g} with β = {best:g} less that with another",
        )
        for mode in modes
    ]
    differ = claim(
        "Mean and stochastic mode do not give the same results.",
        left=(vib("mean", low).at(beta=best) - vib("stochastic", low).at(beta=best)).abs(),
        right=MODES_DIFFER,
        about="difference between mean and stochastic mode, either way",
        place="Section 3.1",
    )
    above_chance = [_above_chance(vib(mode, high).at(beta=best), mode, high) for mode in modes]
    return [*gains, *above_chance, *peaks, *([differ] if {"mean", "stochastic"} <= set(config.modes) else [])]


def _above_chance(robust: Select, mode: str, eps: float) -> Claim | OtherClaim:
    text = f"It keeps more than chance at ε = {eps:g}, where no classifier can: the attack is too weak ({NAMES[mode]})."
    if eps < GREY:
        reason = f"ε = {eps:g} does not reach uniform grey; {GREY:g} does."
        return OtherClaim(text, lambda _: (Verdict.UNDECIDED, reason), "Figure 1")
    return Claim(
        text,
        left=robust,
        right=select("chance", objective="vib", beta=robust.where["beta"], attack="fgsm", mode="mean"),
        about="accuracy less that of the best constant prediction",
        place="Figure 1",
    )


def _fgs_blocks(config: FgsConfig) -> list[Block]:
    robust = {eps: ROBUST.at(attack="fgsm", eps=eps) for eps in config.eps}
    accuracies = {"Clean images": CLEAN.at(attack="fgsm"), **{f"FGS, ε = {eps:g}": robust[eps] for eps in robust}}
    return [
        *(over_parameter(title, accuracy, "vib", "beta") for title, accuracy in accuracies.items()),
        Pivot(
            title="Means over seeds",
            reading=_ZERO,
            rows=("objective", "beta", "mode"),
            columns={
                "clean": CLEAN,
                **{f"FGS {eps:g}": robust[eps] for eps in robust},
                "chance": select("chance"),
                "zero gradients": ZERO,
            },
        ),
    ]


# --- figures 2 and 8: restarts ---


def _restart_claims(config: RestartConfig) -> list[Claim]:
    vib = {mode: ROBUST.at(objective="vib", attack="pgd", mode=mode).last("restarts") for mode in _claimed(config)}
    to_zero = [
        Claim(
            f"Restarts drive VIB's robust accuracy to zero ({NAMES[mode]}).",
            left=accuracy,
            op="<",
            right=NOT_ROBUST_MNIST,
            about="accuracy after all starts",
            place="Figure 2",
        )
        for mode, accuracy in vib.items()
    ]
    worse = [
        Claim(
            f"VIB can be made less robust than the deterministic network ({NAMES[mode]}).",
            left=accuracy,
            op="<",
            right=ROBUST.at(objective="determ", attack="pgd", mode="mean").last("restarts"),
            about="accuracy after all starts, VIB less deterministic",
            place="Figure 8",
        )
        for mode, accuracy in vib.items()
    ]
    overstated = [
        _overstated(
            f"A single start overstates VIB's robust accuracy ({NAMES[mode]}).",
            select("broken_by_restarts", objective="vib", mode=mode),
            "Section 3.1",
        )
        for mode in vib
    ]
    return [*(worse if isinstance(config, SmallBallConfig) else to_zero), *overstated]


def _overstated(text: str, broken: Select, place: str) -> Claim:
    return Claim(text, left=broken, right=OVERSTATED, about="images that only further starts break", place=place)


def _restart_blocks(config: RestartConfig) -> list[Block]:
    robust = ROBUST.at(attack="pgd")
    numbers = (*(number for number in SHOWN if number < config.starts), config.starts)
    return [
        _over_restarts("Robust accuracy over the number of starts", robust),
        Pivot(
            title="Means over seeds",
            reading=f"{_ZERO} If there are many, PGD does not move because the cross-entropy is saturated.",
            rows=("objective", "mode"),
            columns={
                "clean": CLEAN,
                **{f"{number} start{'s' * (number > 1)}": robust.at(restarts=number) for number in numbers},
                "zero gradients": ZERO,
            },
        ),
    ]


def _over_restarts(title: str, accuracy: Select) -> Curves:
    return Curves(
        title=title,
        reading="Means over seeds, ε = {eps:g}.",
        y=accuracy,
        x="restarts",
        lines=("objective", "mode"),
        x_label="random starts of PGD",
        y_label="accuracy",
        interval=True,
        y_range=(0.0, 1.0),
    )


# --- figures 3 and 9: CIFAR-10 ---


def _cifar_claims(config: CifarConfig) -> list[Claim]:
    """In mean mode."""
    claim, key = partial(Claim, place="Section 3.2"), config.parameter
    name, reference = config.kind.upper(), f"{config.symbol} = {config.reference:g}"
    ours: dict[str, Wanted] = {"objective": config.kind, "mode": "mean"}
    at_reference: dict[str, Wanted] = {**ours, key: config.reference}
    plain: dict[str, Wanted] = {"objective": "determ", "mode": "mean", key: None}
    weak, strong = ROBUST.at(attack="pgd", restarts=1), ROBUST.at(attack="ensemble")
    return [
        claim(
            "Some deterministic networks are more accurate under a single run of PGD than an adversarially trained "
            "one.",
            left=weak.at(**plain),
            right=ADVERSARIALLY_TRAINED,
            over=("seed",),
            every="any",
            about="accuracy under a single run",
            least_seeds=1,
        ),
        _overstated(
            f"Restarts of PGD reduce the robust accuracy of {name} with {reference} considerably.",
            select("broken_by_restarts", **at_reference),
            "Section 3.2",
        ),
        claim(
            "Under AA+MT deterministic networks have no robust accuracy.",
            left=strong.at(**plain),
            op="<",
            right=NOT_ROBUST_CIFAR,
            about="accuracy under AA+MT",
        ),
        claim(
            f"A single run of PGD overstates {name} with {reference}.",
            left=weak.at(**at_reference),
            right=strong.at(**at_reference),
            margin=OVERSTATED,
            about="accuracy under a single run less that under AA+MT",
        ),
        claim(
            f"Some {name} models are more accurate than the deterministic ones under AA+MT.",
            left=strong.at(**ours),
            right=strong.at(**plain).mean_over_seeds(),
            over=(key, "seed"),
            every="any",
            about="accuracy under AA+MT less the mean of the deterministic networks",
            least_seeds=1,
        ),
    ]


def _cifar_blocks(config: CifarConfig) -> list[Block]:
    kind, key = config.kind, config.parameter
    restarts, strong = ROBUST.at(attack="pgd"), ROBUST.at(attack="ensemble")
    weak = restarts.at(restarts=1)
    madry = (Mark("adversarially trained (Madry et al.)", y=ADVERSARIALLY_TRAINED),)
    title = f"PGD with restarts, {config.symbol} = {config.reference:g}"
    return [
        over_parameter("A single run of PGD", weak, kind, key, marks=madry),
        over_parameter("AA+MT", strong, kind, key),
        _over_restarts(title, restarts.at(objective=kind, **{key: config.reference})),
        _over_restarts("PGD with restarts", restarts.at(objective=("determ",))),
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


_restarts = partial(
    Study,
    measure="experiments:restarts",
    claims=_restart_claims,
    blocks=_restart_blocks,
    names=NAMES,
)
_cifar = partial(
    Study,
    measure="experiments:cifar",
    claims=_cifar_claims,
    blocks=_cifar_blocks,
    names=NAMES,
)
STUDIES = (
    Study(
        name="closer-look/figure-1",
        title="Figure 1: VIB on MNIST under FGS",
        question="How much accuracy does VIB keep on MNIST under the one-step attack, and is that robustness genuine?",
        config=FgsConfig,
        measure="experiments:fgs",
        claims=_fgs_claims,
        blocks=_fgs_blocks,
        names=NAMES,
    ),
    _restarts(
        name="closer-look/figure-2",
        title="Figure 2: VIB on MNIST under PGD with restarts, ε = 0.2",
        question="Does VIB's robustness on MNIST survive PGD with many random starts?",
        config=RestartConfig,
    ),
    _cifar(
        name="closer-look/figure-3",
        title="Figure 3: CEB on CIFAR-10",
        question="How robust is CEB on CIFAR-10: under one run of PGD, with restarts, and under stronger attacks?",
        config=CifarConfig,
    ),
    _restarts(
        name="closer-look/figure-8",
        title="Figure 8: VIB on MNIST under PGD with restarts, ε = 0.1",
        question="Is VIB on MNIST even less robust than a deterministic network, once PGD starts often enough?",
        config=SmallBallConfig,
    ),
    _cifar(
        name="closer-look/figure-9",
        title="Figure 9: VIB on CIFAR-10",
        question="How robust is VIB on CIFAR-10: under one run of PGD, with restarts, and under stronger attacks?",
        config=VibConfig,
    ),
)
