"""CEB on CIFAR-10: 28×10 and 62×7 Wide ResNets (figures 2 and 3; figure 6 of Fischer 2020), and their pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from isthmus.core.display import Figure, Mark, Series
from isthmus.core.types import Metric
from isthmus.studies.blocks import Block, Curves, Pivot, not_measured
from isthmus.studies.ceb.cifar_claims import (
    MADRY_EPS,
    MADRY_LINF,
    SOURCES,
    ball,
    claims_28x10,
    claims_62x7,
    comparable_to_madry,
    pgd,
)
from isthmus.studies.ceb.cifar_configs import (
    BidirectionalConfig,
    Cifar28x10Config,
    Cifar62x7Config,
    CifarConfig,
    shift_name,
)
from isthmus.studies.ceb.common import NORMS, TEST, best_run, choice_table, over_rho
from isthmus.studies.ceb.configs import OBJECTIVES
from isthmus.studies.image_models import ModelSpec
from isthmus.studies.paper_values import paper_value
from isthmus.studies.quantities import Select, select
from isthmus.studies.rows import Rows
from isthmus.studies.study import Study, StudyRecord

NAMES = {**OBJECTIVES, **SOURCES}
CURVES = 4
"""Number of CEB models in figure 3."""


def _over_rho(title: str, quantity: Select, madry: float | None) -> Curves:
    kinds = ("determ", "determ_bn", "determ_pgd")
    levels = {OBJECTIVES[kind]: quantity.at(objective=kind, rho=None) for kind in kinds}
    marks = () if madry is None else (Mark("Madry, printed", y=madry),)
    return over_rho(title, quantity.at(objective=("ceb", "ceb_bn")), levels, "accuracy", marks)


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
        for name in map(shift_name, config.shifts)
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


STUDIES = (
    Study(
        name="ceb/cifar-28x10",
        title="Figures 2 and 3: CEB and deterministic 28×10 networks on CIFAR-10",
        question="How do accuracy and robustness on CIFAR-10 depend on ρ for CEB's 28×10 Wide ResNets, and which ρ "
        "train at all?",
        config=Cifar28x10Config,
        measure="cifar_experiments:cifar",
        claims=claims_28x10,
        blocks=_blocks_28x10,
        names=NAMES,
    ),
    Study(
        name="ceb/cifar-62x7",
        title="Figure 3: CEB's 62×7 networks on CIFAR-10",
        question="Do large Wide ResNets train on CIFAR-10 at ρ = 0, and are they then more accurate, robust and "
        "general than at ρ = 5?",
        config=Cifar62x7Config,
        measure="cifar_experiments:cifar",
        claims=claims_62x7,
        blocks=_blocks_62x7,
        names=NAMES,
    ),
    Study(
        name="ceb/cifar-62x7-bidirectional",
        title="Figure 6 of Fischer 2020: bidirectional CEB's 62×7 networks on CIFAR-10",
        question="Are large Wide ResNets that bidirectional CEB trained on CIFAR-10 at ρ = 0 more accurate, robust and "
        "general than at ρ = 5?",
        config=BidirectionalConfig,
        measure="cifar_experiments:cifar",
        claims=claims_62x7,
        blocks=_blocks_62x7,
        names=NAMES,
    ),
)
