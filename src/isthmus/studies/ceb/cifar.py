"""CEB on CIFAR-10: 28×10 and 62×7 Wide ResNets (figures 2 and 3; figure 6 of Fischer 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from isthmus.core.types import Coordinate, Figure, Mark, Metric, Series
from isthmus.metrics import wilson
from isthmus.studies.blocks import Block, Curves, Pivot, not_measured
from isthmus.studies.ceb.choice import best_run, choice_table
from isthmus.studies.ceb.cifar_configs import (
    SAME_IMAGES,
    BidirectionalConfig,
    Cifar28x10Config,
    Cifar62x7Config,
    CifarConfig,
)
from isthmus.studies.ceb.configs import OBJECTIVES
from isthmus.studies.ceb.fashion import NORMS, ROBUST, TEST, plain
from isthmus.studies.claims import Claim, Comparison, OtherClaim
from isthmus.studies.estimates import LEAST_SEEDS, percent
from isthmus.studies.image_models import ModelSpec
from isthmus.studies.paper_values import paper_value
from isthmus.studies.quantities import Select, select
from isthmus.studies.rows import Rows
from isthmus.studies.study import Study, StudyRecord
from isthmus.studies.verdicts import Verdict

TRAINS_FROM = 1.0
"""CEB, section 3.2: of 25 models, ρ = −1, −0.75, …, 5, only those with at least this ρ left chance."""
NEAR = 0.01
"""A difference of accuracy that counts as "about the same"; the paper's models lie within 1.2 points."""
LOST = 0.05
"""A fraction of all images that an ensemble breaks beyond PGD, from which on PGD misled."""
MADRY_EPS, MADRY_LINF = 8 / 255, paper_value("ceb", "cifar-28x10", "PGD ℓ∞", objective="determ_pgd")
"""ε of the accuracy in ℓ∞ that Madry et al. print, and that accuracy."""
SOURCES: dict[Coordinate, str] = {
    "largest rho": "the network at the largest ρ",
    "deterministic": "the deterministic network",
    "another run": "another run at the same ρ",
    "madry": "Madry",
}
NAMES = {**OBJECTIVES, **SOURCES}
CURVES = 4
"""CEB models in figure 3; their ρ is printed in its legend alone."""

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
    """Whether models are compared at Madry's: CIFAR-10, ε = 8/255 in ℓ∞."""
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
        left=ours if comparable_to_madry(config) else ours.at(data=config.data),  # no row has this coordinate
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
        yield Claim(
            f"Ours: the best network at the smallest ρ that trained is more robust to transfers from {text} than to "
            "the attack on itself, in both norms.",
            left=parts[0].left,
            right=parts[0].right,
            about=parts[0].about,
            also=tuple(parts[1:]),
            least_seeds=1,
            optional=source != "madry",
            place="CEB, Figure 3",
        )


def _survives(config: CifarConfig, family: str, norm: str) -> Claim:
    """Not the papers' claim: whether PGD's number is about that of a strong ensemble."""
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


def _claims_28x10(config: Cifar28x10Config) -> Claims:
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


def _claims_62x7(config: Cifar62x7Config) -> Claims:
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
            for name in shift_names(config)
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
            for name in shift_names(config)
            if name == "cifar10_c"
        ),
        *(_rises(config, family, norm) for norm in NORMS),
        _beats_madry(config, family),
        *_transfers(config),
        *(_survives(config, family, norm) for norm in NORMS),
    ]


def _trains(family: str, rho: float) -> Callable[[Rows], tuple[Verdict, str]]:
    """One run that trains shows that it is possible; three that do not contradict."""

    def judge(rows: Rows) -> tuple[Verdict, str]:
        runs = [row.value for row in rows.select("trained", {"objective": family, "rho": rho})]
        none = Verdict.CONTRADICTED if len(runs) >= LEAST_SEEDS else Verdict.UNDECIDED
        reason = f"{runs.count(1.0)} of {len(runs)} runs left chance; one counts."
        return Verdict.SUPPORTED if 1.0 in runs else none, reason

    return judge


def shift_names(config: CifarConfig) -> list[str]:
    """Names of the shifted test sets, "cifar10_1:v6" or "cifar10_c"."""
    found = []
    for given in config.shifts:
        options = {"name": given} if isinstance(given, str) else given
        name, _, version = str(options["name"]).partition(":")
        version = version or str(options.get("version") or "v6")
        found.append(f"{name}:{version}" if name == "cifar10_1" else name)
    return found


def _over_rho(title: str, quantity: Select, madry: float | None) -> Curves:
    kinds = ("determ", "determ_bn", "determ_pgd")
    return Curves(
        title=title,
        reading="Means over seeds.",
        y=quantity.at(objective=("ceb", "ceb_bn")),
        x="rho",
        lines=("objective",),
        level={OBJECTIVES[kind]: quantity.at(objective=kind, rho=None) for kind in kinds},
        x_label="ρ",
        y_label="accuracy",
        interval=True,
        marks=() if madry is None else (Mark("Madry, printed", y=madry),),
    )


def shown_runs(rows: Rows, config: CifarConfig, most: int = CURVES) -> list[ModelSpec]:
    """The best run at some values of ρ spread over those that trained, and of the deterministic network."""
    family = config.families[0]
    runs: dict[ModelSpec, float] = {}
    for row in rows.select("test_accuracy", {"objective": (family, "determ")}):
        rho = row.coords.get("rho")
        objective = family if row.coords["objective"] == family else "determ"
        runs[ModelSpec(objective, rho, row.coords["seed"])] = float(row.value or 0.0)  # type: ignore[arg-type]
    grid = sorted({model.parameter for model in runs if model.parameter is not None})
    spread = {grid[round((len(grid) - 1) * part / (most - 1))] for part in range(most)} if grid else set()
    found = [best_run(runs, family, rho) for rho in sorted(spread)] + [best_run(runs, "determ", None)]
    return [run for run in found if run is not None]


def _short(run: ModelSpec) -> str:
    """A model's name in figure 3: "CEB0" for ρ = 0."""
    return "Det." if run.parameter is None else f"CEB{run.parameter:g}"


def _over_eps(norm: str) -> Callable[[StudyRecord, CifarConfig], Iterator[Figure]]:
    """Accuracy of the best runs under PGD at each ε, transfers dashed, and points for the ensemble."""

    def figure(record: StudyRecord, config: CifarConfig) -> Iterator[Figure]:
        rows, series = record.rows(), []
        for run in shown_runs(rows, config):
            for attack, style in (("pgd", "line"), ("ensemble", "points")):
                own = {"attack": attack, "norm": norm, "mode": "mean", **run.coords()}
                least = 0.0 if attack == "pgd" else config.at(norm)
                found = [row for row in rows.select("robust_accuracy", own) if float(row.coords["eps"]) >= least]
                name = _short(run) + ", ensemble" * (attack != "pgd")
                series.append(_line(name, found, style, _short(run)))
        for source in SOURCES:
            found = rows.select("transfer_accuracy", {"source": source, "norm": norm})
            series += [_line(f"from {SOURCES[source]}", found, "dashed", str(source))] if found else []
        if series:
            on_grid = norm == "linf" and comparable_to_madry(config)
            yield Figure(
                f"PGD in {NORMS[norm]} over ε, and transfers",
                "The best run at each ρ, selected by its accuracy on the test set, on which it is then shown. Points: "
                "the ensemble, on fewer images. Dashed: transfers to the best run at the smallest ρ that trained.",
                "ε, in 255ths",
                "accuracy",
                tuple(series),
                (Mark("Madry, printed", x=255 * MADRY_EPS, y=MADRY_LINF),) if on_grid else (),
            )

    return figure


def _line(name: str, rows: Sequence[Metric], style: str, group: str) -> Series:
    ends = [(row.interval.low, row.interval.high) for row in rows if row.interval is not None]
    low, high = zip(*ends, strict=True)
    x, y = tuple(255 * float(row.coords["eps"]) for row in rows), tuple(float(row.value or 0.0) for row in rows)
    shown = {} if style == "dashed" else {"low": low, "high": high}
    return Series(name, x, y, style=style, group=group, **shown)  # type: ignore[arg-type]


def _transfer_table(config: CifarConfig) -> Pivot:
    return Pivot(
        title="Transfer attacks",
        reading="Accuracy of the best run at the smallest ρ that trained: under adversarial images of another model "
        "(those that broke it, and where PGD on it ends after all its steps), and under PGD on itself. The best run is "
        "selected by its accuracy on the test set.",
        rows=("source",),
        columns={
            f"{title}, {ball(config, norm)}": select(name, norm=norm, eps=config.at(norm))
            for norm in NORMS
            for title, name in (("transferred", "transfer_accuracy"), ("on itself", "direct_accuracy"))
        },
    )


def _means(config: CifarConfig, reading: str, paper: str) -> Pivot:
    shifted = {
        name: select("corruption_error") if name == "cifar10_c" else select("shift_accuracy", data=name)
        for name in shift_names(config)
    }
    return Pivot(
        title="Means over seeds, beside the printed numbers",
        reading=f"Of all runs that trained; trained: their fraction. Attacks are at {ball(config, 'linf')} and "
        f"{ball(config, 'l2')}; cifar10_c: mean error over corruptions and severities. {reading}",
        rows=("objective", "rho"),
        columns={
            "trained": select("trained"),
            "clean": TEST,
            **{f"PGD {text}": pgd(config, norm) for norm, text in NORMS.items()},
            **{f"ensemble {text}": pgd(config, norm, "ensemble") for norm, text in NORMS.items()},
            **shifted,
        },
        paper=paper,
    )


def _blocks_28x10(config: Cifar28x10Config) -> list[Block]:
    on_cifar = config.data == "cifar10"
    clean = paper_value("ceb", "cifar-28x10", "clean", objective="determ_pgd")
    low, high, above = (
        f"{100 * paper_value('ceb', 'cifar-28x10-range', name):g}%"
        for name in ("least clean", "greatest clean", "PGD ℓ2 above")
    )
    reading = (
        f"The paper's CEB models are accurate to between {low} and {high}, and have above {above} in ℓ2, at an ε that "
        "is not printed. What is printed beside adversarial training is of Madry et al.'s network, which has another "
        "architecture."
    )
    madry = {"linf": MADRY_LINF if comparable_to_madry(config) else None, "l2": None}
    return [
        _over_rho("Clean accuracy", TEST, clean if on_cifar else None),
        *(_over_rho(f"PGD at {ball(config, norm)}", pgd(config, norm), madry[norm]) for norm in NORMS),
        *(_over_eps(norm) for norm in NORMS),
        _transfer_table(config),
        _means(config, reading, "cifar-28x10"),
        choice_table,
        not_measured,
    ]


def _blocks_62x7(config: Cifar62x7Config) -> list[Block]:
    mce = {rho: f"{100 * paper_value('ceb', 'cifar-62x7-mce', 'mCE', rho=rho):g}%" for rho in (0.0, 5.0)}
    reading = (
        "The papers print the most accurate run at each ρ, and do not say which version of CIFAR-10.1 they used. Their "
        f"mCE, {mce[0.0]} at ρ = 0 and {mce[5.0]} at ρ = 5, is relative to a baseline whose errors are not printed, "
        "and does not compare with a mean error."
    )
    return [
        *(_over_eps(norm) for norm in NORMS),
        _transfer_table(config),
        _means(config, reading, "cifar-62x7"),
        not_measured,
    ]


_EXPERIMENTS = "isthmus.studies.ceb.cifar_experiments:cifar"
STUDIES = (
    Study(
        name="ceb/cifar-28x10",
        title="Figures 2 and 3: CEB and deterministic 28×10 networks on CIFAR-10",
        question="How do accuracy and robustness on CIFAR-10 depend on ρ for CEB's 28×10 Wide ResNets, and which ρ "
        "train at all?",
        config=Cifar28x10Config,
        measure=_EXPERIMENTS,
        claims=_claims_28x10,
        blocks=_blocks_28x10,
        names=NAMES,
    ),
    Study(
        name="ceb/cifar-62x7",
        title="Figure 3: CEB's 62×7 networks on CIFAR-10",
        question="Do large Wide ResNets train on CIFAR-10 at ρ = 0, and are they then more accurate, robust and "
        "general than at ρ = 5?",
        config=Cifar62x7Config,
        measure=_EXPERIMENTS,
        claims=_claims_62x7,
        blocks=_blocks_62x7,
        names=NAMES,
    ),
    Study(
        name="ceb/cifar-62x7-bidirectional",
        title="Figure 6 of Fischer 2020: bidirectional CEB's 62×7 networks on CIFAR-10",
        question="Are large Wide ResNets that bidirectional CEB trained on CIFAR-10 at ρ = 0 more accurate, robust and "
        "general than at ρ = 5?",
        config=BidirectionalConfig,
        measure=_EXPERIMENTS,
        claims=_claims_62x7,
        blocks=_blocks_62x7,
        names=NAMES,
    ),
)
