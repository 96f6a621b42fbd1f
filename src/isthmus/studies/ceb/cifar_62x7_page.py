"""The pages of the 62×7 studies: curves over ε, transfers, and ours beside the printed numbers."""

from __future__ import annotations

from isthmus.core.types import Figure, Section, Table
from isthmus.studies import catalogue
from isthmus.studies.ceb import cifar_shown, printed
from isthmus.studies.ceb.cifar_choice import Model, short
from isthmus.studies.ceb.cifar_claims import NORMS, ball, under_pgd
from isthmus.studies.ceb.cifar_shown import SELECTED, best_of, exactly, run_counts, shift_names, shift_value
from isthmus.studies.ceb.sweeps import cells_at, clean, left
from isthmus.studies.old.drawing import Row
from isthmus.studies.old.study import StudyRecord

TITLES = {
    "ceb": "Figure 3: CEB's 62×7 networks on CIFAR-10",
    "bidirectional": "Figure 6 of Fischer 2020: bidirectional CEB's 62×7 networks on CIFAR-10",
}


def section(record: StudyRecord) -> Section:
    """Curves of the best run at each ρ; transfers; the printed numbers; means over seeds."""
    family = record.config["families"][0]
    runs = [run for rho in _rhos(record) if (run := best_of(record, family, rho))]
    blocks: tuple[Figure | Table, ...] = (
        *(cifar_shown.over_eps(record, norm, runs, transfers=True) for norm in NORMS),
        cifar_shown.transfer_table(record),
        _printed(record, runs),
        _means(record, family),
    )
    return Section(TITLES[family], catalogue.question(record.study), blocks if runs else ())


def _rhos(record: StudyRecord) -> list[float]:
    return sorted(record.config["rhos"])


def _paper(record: StudyRecord, run: Model) -> printed.CifarModel | None:
    if run["knob"] == 5.0 and run["objective"] == "bidirectional":
        return printed.BIDIRECTIONAL_62X7_RHO_5
    return {0.0: printed.CEB_62X7, 5.0: printed.CEB_62X7_RHO_5}.get(run["knob"])


def _printed(record: StudyRecord, runs: list[Model]) -> Table:
    """The best run at each ρ beside what the papers print of theirs."""
    rows: list[Row] = []
    names = shift_names(record)
    for run in runs:
        paper = _paper(record, run)
        clean_printed = exactly(paper.clean) if paper else None
        rows.append((f"{short(run)}, clean", clean([run]).metric, clean_printed))
        for name in names:
            rows.append((f"{short(run)}, {_said(name)}", shift_value(record, name, run), _shift_printed(paper, name)))
    linf = [under_pgd(record, [run], "linf").metric for run in runs]
    rows += [(f"{short(run)}, PGD at {ball(record, 'linf')}", one, None) for run, one in zip(runs, linf, strict=True)]
    rows.append(("Madry, clean", None, exactly(printed.MADRY.clean)))
    rows.append(("Madry, PGD at ℓ∞ ε = 8/255", None, "45.8%"))
    return Table(
        title="Ours beside the printed numbers",
        reading=f"{SELECTED} The papers do the same. They do not say which version of CIFAR-10.1 they used. A printed "
        "mCE is relative to a baseline whose errors are not printed, ours is the plain mean error: the two do not "
        "compare. The curves' values are not printed.",
        columns=("best run", "ours", "printed"),
        rows=tuple(rows),
    )


def _said(name: str) -> str:
    return "mean error on cifar10_c" if name == "cifar10_c" else f"accuracy on {name}"


def _shift_printed(paper: printed.CifarModel | None, name: str) -> str | None:
    if paper is None:
        return None
    if name == "cifar10_c":
        return None if paper.mce is None else f"mCE {exactly(paper.mce)}"
    return None if paper.cifar10_1 is None else exactly(paper.cifar10_1)


def _means(record: StudyRecord, family: str) -> Table:
    rows: list[Row] = []
    for rho in _rhos(record):
        cells = cells_at(record, family, rho)
        if cells:
            strong = (left(cells, f"ensemble {norm}").metric for norm in NORMS)
            weak = (under_pgd(record, cells, norm).metric for norm in NORMS)
            rows.append((f"ρ = {rho:g}", run_counts(record, family, rho), clean(cells).metric, *weak, *strong))
    return Table(
        title="Means over seeds",
        reading=f"Of all runs that trained, without selection. Attacks are at {ball(record, 'linf')} and "
        f"{ball(record, 'l2')}.",
        columns=("model", "trained", "clean", "PGD ℓ∞", "PGD ℓ2", "ensemble ℓ∞", "ensemble ℓ2"),
        rows=tuple(rows),
    )
