"""The page of a table: ours beside the printed, what strong attacks leave, and white-box curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.core.types import Figure, Metric, Section, Table
from isthmus.metrics import proportion
from isthmus.studies import catalogue
from isthmus.studies.guess_first import curves, printed
from isthmus.studies.guess_first.printed import CLEAN, L2, LINF, ROWS, Row
from isthmus.studies.guess_first.protocol import SIGMOID, SUBSTITUTE
from isthmus.studies.guess_first.readings import (
    ATTACKS,
    BOXES,
    accuracy,
    cells,
    failed_tests,
    left,
    models,
    tested,
)
from isthmus.studies.old.drawing import Row as Line
from isthmus.studies.old.drawing import Value
from isthmus.studies.old.evidence import Estimate, percent, share
from isthmus.studies.old.image_models import healthy
from isthmus.studies.old.study import StudyRecord


def section(record: StudyRecord, title: str) -> Section:
    """The paper's table, the ensemble and the verdicts, FGSM and PGD over ε."""
    blocks: tuple[Figure | Table, ...] = ()
    if models(record):
        blocks = (
            _table(record),
            _strong(record),
            *(curves.panel(record, "white", attack, curves.ensemble_points) for attack in ("fgsm", "pgd")),
            _verdicts(record),
            _substitutes(record),
        )
    return Section(title, catalogue.question(record.study), blocks)


def _table(record: StudyRecord) -> Table:
    names, lines = models(record), list[Line]()
    for row in ROWS:
        ours = [_ours(record, row, name) for name in names]
        lines.append((_named(row), _size(row), "ours", *ours))
        theirs = [printed.value(record.config["data"], row, name) for name in names]
        if any(value is not None for value in theirs):
            said: list[Value] = ["" if value is None else percent(value) for value in theirs]
            lines.append((_named(row), _size(row), "printed", *said))
    return Table(
        title="Accuracy under attack",
        reading="Means over seeds. White-box: the share of images whose smallest perturbation found is larger than ε, "
        "as Foolbox 1 measured it. Black-box: right before and after, on images made on a LeNet-5 substitute; C&W's "
        "perturbations are scaled to ε. VIB is judged in mean mode. A sigmoid changes no prediction, and so nothing "
        "black-box. Clean accuracy is of the whole test set.",
        columns=("attack", "ε", "numbers", *names),
        rows=tuple(lines),
    )


def _ours(record: StudyRecord, row: Row, name: str) -> Value:
    if name in SIGMOID and row.box == "black":
        return ""
    return _metric(accuracy(record, row, name))


def _metric(estimate: Estimate | None) -> Metric | None:
    return None if estimate is None else estimate.metric


def _named(row: Row) -> str:
    return "clean" if row == CLEAN else f"{ATTACKS[row.attack]}, {BOXES[row.box]}"


def _size(row: Row) -> str:
    return "0" if row == CLEAN else f"{'ℓ2' if row.attack == 'cw' else 'ℓ∞'} {row.eps:g}"


def _strong(record: StudyRecord) -> Table:
    sizes = [("linf", eps, "ℓ∞") for eps in LINF] + [("l2", eps, "ℓ2") for eps in L2]
    lines: list[Line] = []
    for name in models(record):
        found = [list(left(record, norm, eps, name).values()) for norm, eps, _ in sizes]
        pgd, cw = (accuracy(record, Row("white", *at), name) for at in (("pgd", LINF[0]), ("cw", L2[0])))
        metrics = [share(each, tested(record, Row("white", "pgd", 0.0))).metric if each else None for each in found]
        lines.append((name, _metric(pgd), *metrics[:2], _metric(cw), metrics[2]))
    suite = f"“{record.config['suite']}”"
    return Table(
        title="What a strong ensemble leaves, white-box",
        reading=f"The suite {suite} on the same images, beside the strongest attack of the time in each norm. What was "
        "robust to the old attack alone is not robust.",
        columns=(
            "model",
            f"PGD of the time, ℓ∞ {LINF[0]:g}",
            *(f"ensemble, {symbol} {eps:g}" for norm, eps, symbol in sizes if norm == "linf"),
            f"C&W, ℓ2 {L2[0]:g}",
            f"ensemble, ℓ2 {L2[0]:g}",
        ),
        rows=tuple(lines),
    )


def _verdicts(record: StudyRecord) -> Table:
    lines: list[Line] = []
    for name in models(record):
        for seed, cell in cells(record, "verdict", name).items():
            lines.append(
                (
                    name,
                    f"{seed}",
                    cell["verdict"],
                    proportion(cell["reported"], cell["n"]),
                    proportion(cell["corrected"], cell["n"]),
                    ", ".join(test.replace("_", " ") for test in failed_tests(cell)) or "none",
                    _first_reason(cell),
                )
            )
    return Table(
        title=f"Is the robustness real? The verdict at ℓ∞ {LINF[0]:g}",
        reading="Reported: what one run of PGD-40 with the cross-entropy leaves. Left: after every test and follow-up. "
        "Each line is one model, judged in mean mode.",
        columns=("model", "seed", "verdict", "reported", "left", "tests failed", "the first of them says"),
        rows=tuple(lines),
    )


def _first_reason(cell: Mapping[str, Any]) -> str:
    failed = failed_tests(cell)
    return cell["tests"][failed[0]][1] if failed else ""


def _substitutes(record: StudyRecord) -> Table:
    lines: list[Line] = []
    for cell in healthy(record, trial="black-box"):
        own = cell["victims"][SUBSTITUTE]["attacks"]
        shares = [
            proportion(own[row.attack]["standing"][own[row.attack]["eps"].index(row.eps)], cell["n"])
            for row in ROWS
            if row.box == "black"
        ]
        moved = proportion(cell["moved"]["cw"], cell["n"])
        lines.append((f"{cell['seed']}", percent(cell["substitute"]["test_accuracy"]), *shares, moved))
    rows = [row for row in ROWS if row.box == "black"]
    return Table(
        title="The substitutes under what was made on them",
        reading="How much of its own accuracy each attack leaves the substitute; and the share of images for which C&W "
        "found a perturbation that could be scaled.",
        columns=("seed", "clean", *(f"{ATTACKS[row.attack]}, {_size(row)}" for row in rows), "C&W found"),
        rows=tuple(lines),
    )
