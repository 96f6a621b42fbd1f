"""Claims of the papers about 28×10 and 62×7 networks on CIFAR-10.

"Accuracy under PGD" is measured at the ε of comparison, ``at_linf`` or ``at_l2`` of the study's options.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from isthmus.core.types import Coordinate
from isthmus.metrics import wilson
from isthmus.studies.ceb.cifar_configs import (
    SAME_IMAGES,
    Cifar28x10Config,
    Cifar62x7Config,
    CifarConfig,
    shift_name,
)
from isthmus.studies.ceb.common import NORMS, ROBUST, TEST, plain
from isthmus.studies.ceb.configs import OBJECTIVES
from isthmus.studies.claims import Claim, Comparison, OtherClaim
from isthmus.studies.estimates import LEAST_SEEDS, percent
from isthmus.studies.paper_values import paper_value
from isthmus.studies.quantities import Select, select
from isthmus.studies.rows import Rows
from isthmus.studies.verdicts import Verdict

TRAINS_FROM = 1.0
"""CEB, section 3.2: of 25 models, ρ = −1, −0.75, …, 5, only those with at least this ρ left chance."""
NEAR = 0.01
"""Accuracies closer than this are "about the same"; the paper's models lie within 1.2 points."""
LOST = 0.05
"""If an ensemble breaks at least this fraction of all images beyond PGD, PGD was misleading."""
MADRY_EPS, MADRY_LINF = 8 / 255, paper_value("ceb", "cifar-28x10", "PGD ℓ∞", objective="determ_pgd")
"""ε of Madry et al.'s printed accuracy in ℓ∞, and that accuracy."""
SOURCES: dict[Coordinate, str] = {
    "largest rho": "the network at the largest ρ",
    "deterministic": "the deterministic network",
    "another run": "another run at the same ρ",
    "madry": "Madry",
}


_SECTION = "CEB, Section 3.2"
Claims = list[Claim | OtherClaim]


def pgd(config: CifarConfig, norm: str, attack: str = "pgd") -> Select:
    """Robust accuracy at the ε of comparison."""
    return ROBUST.at(attack=attack, norm=norm, eps=config.at(norm))


def ball(config: CifarConfig, norm: str) -> str:
    """The ε of comparison, such as "ℓ∞ ε = 8/255"."""
    return f"{NORMS[norm]} ε = {eps_text(config.at(norm))}"


def eps_text(eps: float) -> str:
    """An ε as 255ths if it is a whole number of them, below 1."""
    whole = eps < 1 and abs(255 * eps - round(255 * eps)) < 1e-6
    return f"{round(255 * eps)}/255" if whole else f"{eps:g}"


def comparable_to_madry(config: CifarConfig) -> bool:
    """Whether models are compared as Madry et al.'s: on CIFAR-10, at ε = 8/255 in ℓ∞."""
    return config.data == "cifar10" and math.isclose(config.at_linf, MADRY_EPS)


def _rises(config: CifarConfig, family: str, norm: str) -> Claim:
    return Claim(
        f"{OBJECTIVES[family]}'s accuracy under PGD in {NORMS[norm]} rises as ρ falls.",
        left=pgd(config, norm).at(objective=family).slope("rho"),
        op="<",
        about=f"change of the accuracy at {ball(config, norm)} with ρ, for each unit",
        place=_SECTION,
    )


def _beats_madry(config: CifarConfig, family: str) -> Claim:
    ours = pgd(config, "linf").at(objective=family)
    return Claim(
        f"Some {OBJECTIVES[family]} models are more robust to PGD in ℓ∞ than Madry, which was trained on that attack.",
        left=ours
        if comparable_to_madry(config)
        else ours.at(data=config.data),  # nothing is measured there: no row has this coordinate
        right=MADRY_LINF,
        over=("rho", "seed"),
        every="any",
        about=f"accuracy of single models at {ball(config, 'linf')} under {config.steps} steps; Madry et al. print "
        f"{percent(MADRY_LINF)} for 20 steps",
        least_seeds=1,
        place="CEB, Figure 2",
    )


def _transfers(config: CifarConfig) -> Iterator[Claim]:
    for source, text in SOURCES.items():
        parts = [
            Comparison(
                left=select("transfer_accuracy", source=source, norm=norm, eps=config.at(norm)),
                right=select("direct_accuracy", source=source, norm=norm, eps=config.at(norm)),
                about=f"accuracy at {ball(config, norm)} under the transfer less that under PGD on itself",
            )
            for norm in NORMS
        ]
        yield Claim.joint(
            f"Ours: the best network at the smallest ρ that trained is more robust to transfers from {text} than to "
            "the attack on itself, in both norms.",
            *parts,
            least_seeds=1,
            optional=source != "madry",
            place="CEB, Figure 3",
        )


def _survives(config: CifarConfig, family: str, norm: str) -> Claim:
    """Whether PGD's accuracy is close to that of a strong ensemble; not a claim of the papers."""
    rhos = config.repeated or config.rhos
    weak, strong = (
        pgd(config, norm, name).at(objective=family, rho=rhos).first("rho") for name in (SAME_IMAGES, "ensemble")
    )
    lead = Comparison(
        left=strong,
        right=plain(pgd(config, norm, "ensemble")),
        about="robust accuracy under the ensemble less that of the deterministic network",
    )
    with_plain = any(objective == "determ" for objective, _ in config.of_seed(config.first_seed))
    return Claim(
        f"At its smallest ρ, {OBJECTIVES[family]}'s robustness in {NORMS[norm]} survives a strong ensemble.",
        left=weak,
        op="<",
        right=strong,
        margin=-LOST,
        about=f"robust accuracy at {ball(config, norm)} under PGD less that under the ensemble, on the same images",
        also=(lead,) if with_plain else (),
    )


def claims_28x10(config: Cifar28x10Config) -> Claims:
    """The paper's claims in order, transfers, and whether robustness survives a strong ensemble."""
    ceb = {"objective": "ceb"}
    large = tuple(eps for eps in config.l2 if eps > config.at_l2)
    at_large = ROBUST.at(attack="pgd", norm="l2", eps=large)
    again = config.repeated or config.rhos
    return [
        OtherClaim(
            f"Below ρ = {TRAINS_FROM:g} CEB does not train and stays at chance; from there on it trains.",
            _low_collapses,
            _SECTION,
        ),
        *(_rises(config, "ceb", norm) for norm in NORMS),
        *(
            Claim(
                f"CEB is more robust to PGD in {text} than the deterministic network, at every ρ that trained.",
                left=pgd(config, norm).at(**ceb),
                right=plain(pgd(config, norm)),
                over=("rho",),
                seeded=True,
                about=f"lead in accuracy at {ball(config, norm)}",
                place="CEB, Figure 2",
            )
            for norm, text in NORMS.items()
        ),
        _beats_madry(config, "ceb"),
        Claim(
            "CEB is about as accurate as the deterministic network, at every ρ that trained.",
            left=TEST.at(**ceb),
            op="within",
            right=plain(TEST),
            margin=NEAR,
            over=("rho",),
            seeded=True,
            about="accuracy less that of the deterministic network",
            place="CEB, Figure 2",
        ),
        Claim(
            "Batch normalisation makes the deterministic network more accurate and less robust in ℓ∞.",
            left=TEST.at(objective="determ_bn"),
            right=plain(TEST),
            about="gain in accuracy",
            also=(
                Comparison(
                    left=plain(pgd(config, "linf")),
                    right=pgd(config, "linf").at(objective="determ_bn"),
                    about=f"loss of accuracy under PGD at {ball(config, 'linf')}",
                ),
            ),
            place=_SECTION,
        ),
        *([_rises(config, "ceb_bn", "linf")] if config.normed else []),
        Claim(
            "At large ℓ2 radii the deterministic network is more robust to PGD than CEB at its largest ρ.",
            left=plain(at_large),
            right=at_large.at(objective="ceb", rho=again).last("rho"),
            over=("eps",),
            every="any",
            about=f"lead of the deterministic network at ε above {eps_text(config.at_l2)}",
            place="CEB, Figure 3",
        ),
        *_transfers(config),
        *(_survives(config, "ceb", norm) for norm in NORMS),
    ]


def _low_collapses(rows: Rows) -> tuple[Verdict, str]:
    runs = rows.select("trained", {"objective": "ceb"})
    below, above = ([row for row in runs if (row.coords["rho"] < TRAINS_FROM) == side] for side in (True, False))  # type: ignore[operator]
    if not below or not above:
        return Verdict.UNDECIDED, "There are runs on one side of it only."
    stayed, trained = sum(row.value == 0 for row in below), sum(row.value == 1 for row in above)
    parts = [wilson(stayed, len(below)), wilson(trained, len(above))]
    reason = (
        f"{stayed} of {len(below)} runs below it stayed at chance, and {trained} of {len(above)} from it on trained; "
        "more than half of either counts, with 95% confidence."
    )
    if len({row.coords["seed"] for row in runs}) < LEAST_SEEDS:
        return Verdict.UNDECIDED, reason
    if any(part.high <= 0.5 for part in parts):
        return Verdict.CONTRADICTED, reason
    return Verdict.SUPPORTED if all(part.low > 0.5 for part in parts) else Verdict.UNDECIDED, reason


def claims_62x7(config: Cifar62x7Config) -> Claims:
    """The papers' claims in order, transfers, and whether robustness survives a strong ensemble."""
    family, low, high = config.families[0], min(config.rhos), max(config.rhos)
    both = f"ρ = {low:g} less ρ = {high:g}"
    test, error = (quantity.at(objective=family) for quantity in (TEST, select("corruption_error")))

    def fall(name: str, rho: float) -> Select:
        return select("shift_accuracy", data=name, objective=family, rho=rho)

    return [
        OtherClaim(f"A network of this size trains at ρ = {low:g}.", _trains(family, low), _SECTION),
        Claim(
            f"ρ = {low:g} is more accurate than ρ = {high:g}.",
            left=test.at(rho=low),
            right=test.at(rho=high),
            about=f"accuracy, {both}",
            place=_SECTION,
        ),
        *(
            Claim(
                f"ρ = {low:g} generalises to {name} better than ρ = {high:g}: the accuracy falls by less.",
                left=test.at(rho=high) - fall(name, high),
                right=test.at(rho=low) - fall(name, low),
                about=f"fall of the accuracy at ρ = {high:g} less that at ρ = {low:g}",
                place=_SECTION,
            )
            for name in map(shift_name, config.shifts)
            if name != "cifar10_c"
        ),
        *(
            Claim(
                f"ρ = {low:g} errs less under common corruptions (CIFAR-10-C) than ρ = {high:g}.",
                left=error.at(rho=low),
                op="<",
                right=error.at(rho=high),
                about=f"mean error over corruptions and severities, {both}; the papers' mCE divide by a baseline that "
                "is not printed",
                place=_SECTION,
            )
            for name in map(shift_name, config.shifts)
            if name == "cifar10_c"
        ),
        *(_rises(config, family, norm) for norm in NORMS),
        _beats_madry(config, family),
        *_transfers(config),
        *(_survives(config, family, norm) for norm in NORMS),
    ]


def _trains(family: str, rho: float) -> Callable[[Rows], tuple[Verdict, str]]:
    """One run that trains supports the claim; three that do not contradict it."""

    def judge(rows: Rows) -> tuple[Verdict, str]:
        runs = [row.value for row in rows.select("trained", {"objective": family, "rho": rho})]
        none = Verdict.CONTRADICTED if len(runs) >= LEAST_SEEDS else Verdict.UNDECIDED
        reason = f"{runs.count(1.0)} of {len(runs)} runs left chance; one counts."
        return Verdict.SUPPORTED if 1.0 in runs else none, reason

    return judge
