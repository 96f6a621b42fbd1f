"""Out-of-distribution detection on Fashion-MNIST: table 1 of Fischer 2020, of which four rows are impossible."""

from __future__ import annotations

from collections.abc import Iterator

from isthmus.core.display import Table
from isthmus.core.types import Coordinate
from isthmus.studies.blocks import Block, Pivot
from isthmus.studies.ceb.common import CEB_0, DETERM, VIB_0, VIB_4, Model, named
from isthmus.studies.ceb.configs import OBJECTIVES, DetectionConfig
from isthmus.studies.claims import Claim, OtherClaim
from isthmus.studies.estimates import percent
from isthmus.studies.paper_values import paper_values
from isthmus.studies.quantities import Quantity, Select, select
from isthmus.studies.rows import Rows
from isthmus.studies.study import Study, StudyRecord
from isthmus.studies.verdicts import Verdict

OUTS: dict[Coordinate, str] = {
    "uniform_noise": "U(0, 1)",
    "mnist": "MNIST",
    "vertical_flip": "vertical flips",
    "cw": "C&W",
}
NAMES: dict[Coordinate, str] = {
    **OBJECTIVES,
    **OUTS,
    "entropy": "entropy",
    "max_probability": "maximum probability",
    "energy": "energy",
    "rate": "rate R",
    "residual": "ReX to the predicted class",
    "mean": "mean mode",
    "stochastic": "stochastic mode",
}
SATURATED = 0.01
"""A false positive rate below this is "saturated"; the paper prints 0.0% and 0.1%."""
DIGIT = 0.0005
"""The rounding error of a printed tenth of a percent, on either side."""
TPR = 0.95
"""True positive rate at which the false positive rate is measured."""

_TABLE = "Entropy, Table 1"


def _by(name: str, model: Model, score: str) -> Select:
    return select(name, mode="mean", score=score).at(**model)


def _auroc_gap(text: str, one: Quantity, other: Quantity) -> Claim:
    return Claim(text, left=one, right=other, over=("out",), about="difference in AUROC", place=_TABLE)


def _claims(config: DetectionConfig) -> list[Claim | OtherClaim]:
    others = tuple(out for out in out_names(config) if out != "cw")  # on which it is printed as better
    success = select("attack_success", out="cw")
    return [
        *(
            _auroc_gap(
                f"The rate of {named(model)} detects every kind of out-of-distribution image better than the entropy "
                "of a deterministic network.",
                _by("auroc", model, "rate"),
                _by("auroc", DETERM, "entropy"),
            )
            for model in (CEB_0, VIB_4)
        ),
        *(
            Claim(
                f"The rate of {named(model)} saturates detection: next to no other image passes where 95% of the test "
                "images do.",
                left=_by("fpr95_in", model, "rate"),
                op="<",
                right=SATURATED,
                over=("out",),
                about="false positive rate",
                place=_TABLE,
            )
            for model in (CEB_0, VIB_4)
        ),
        _auroc_gap(
            "A rate alone does not make detection good: that of VIB, ρ = 0, detects noise, MNIST and vertical flips "
            "worse than the entropy of a deterministic network.",
            _by("auroc", DETERM, "entropy").at(out=others),
            _by("auroc", VIB_0, "rate").at(out=others),
        ),
        *(
            _auroc_gap(
                f"The entropy of {named(model)} is always inferior to its rate.",
                _by("auroc", model, "rate"),
                _by("auroc", model, "entropy"),
            )
            for model in (CEB_0, VIB_4, VIB_0)
        ),
        Claim(
            "C&W succeeds on fewer images of CEB, ρ = 0, than of the deterministic network.",
            left=success.at(**DETERM),
            right=success.at(**CEB_0),
            about="success of C&W on the deterministic network (100% in the paper) less that on CEB (35.8%)",
            place=_TABLE,
        ),
        OtherClaim("The printed table is possible: each false positive rate fits its AUROC.", _possible, _TABLE),
    ]


def out_names(config: DetectionConfig) -> list[str]:
    """Names of the out-distributions."""
    return [out if isinstance(out, str) else str(out["name"]) for out in config.outs]


def least_auroc(fpr: float) -> float:
    """The least AUROC for a false positive rate at 95% true positive rate.

    The ROC curve does not fall, so it is at least 95% from that false positive rate on.
    """
    return TPR * (1 - fpr)


def impossible_rows() -> list[tuple[str, str, float, float]]:
    """Printed rows that are impossible: out-distribution, model, false positive rate and AUROC."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for each in paper_values("ceb", "detection"):
        model = {"objective": each.coords["objective"], "rho": each.coords.get("rho")}
        found.setdefault((OUTS[each.coords["out"]], named(model)), {})[each.metric] = each.value
    rows = [(*place, values["FPR at 95% TPR"], values["AUROC"]) for place, values in found.items()]
    return [row for row in rows if row[3] + DIGIT < least_auroc(row[2] + DIGIT)]


def _possible(_: Rows) -> tuple[Verdict, str]:
    """Whether the printed numbers agree with one another; our measurements play no part."""
    rows = impossible_rows()
    each = "; ".join(
        f"{model} on {out}: AUROC {percent(auroc)}, at least {percent(least_auroc(fpr))}"
        for out, model, fpr, auroc in rows
    )
    reason = f"AUROC is at least 0.95 · (1 − FPR at 95% TPR), which {len(rows)} rows break. {each}."
    return Verdict.CONTRADICTED if rows else Verdict.SUPPORTED, reason


def _impossible(record: StudyRecord, _: DetectionConfig) -> Iterator[Table]:
    if record.experiments:
        yield Table(
            title="Printed rows that are mathematically impossible",
            reading="At 95% TPR only the printed fraction of the negatives passes, and the ROC curve rises: the area "
            "under it is at least 0.95 times the rest. No scores have these pairs of numbers, whichever class is the "
            "positive one.",
            columns=("images", "model", "FPR at 95% TPR", "AUROC as printed", "AUROC at least"),
            rows=tuple(
                (out, model, percent(fpr), percent(auroc), percent(least_auroc(fpr)))
                for out, model, fpr, auroc in impossible_rows()
            ),
        )


def _blocks(config: DetectionConfig) -> list[Block]:
    def shown(name: str) -> Select:
        return select(name, mode="mean", score=("entropy", "rate"))

    return [
        Pivot(
            title="Detection, ours and printed",
            reading="Test images are in-distribution and positive: the false positive rate is the fraction of the "
            "other images that pass where 95% of the test images do. The paper shows entropy for the deterministic "
            "network and the rate for others.",
            rows=("out", "objective", "rho", "score"),
            columns={
                "FPR at 95% TPR": shown("fpr95_in"),
                "AUROC": shown("auroc"),
                "AUPR In": shown("aupr_in"),
            },
            paper="detection",
        ),
        Pivot(
            title="Success of the attack",
            reading="C&W is sought for {attacked:,} of the test images that are classified correctly; its success "
            "depends on its number of steps.",
            rows=("out", "objective", "rho"),
            columns={"attack success": select("attack_success")},
            paper="attack-success",
        ),
        Pivot(
            title="AUROC by every score of each model",
            reading="Larger scores mean further from the data; 50% is chance, and below it the other images look more "
            "familiar than the test images.",
            rows=("objective", "rho", "score", "mode"),
            columns={OUTS.get(out, out.replace("_", " ")): select("auroc", out=out) for out in out_names(config)},
        ),
        _impossible,
    ]


STUDIES = (
    Study(
        name="ceb/detection",
        title="Table 1: out-of-distribution detection on Fashion-MNIST",
        question="How well do the entropy of a deterministic network and the rate of bottlenecks detect "
        "out-of-distribution images on Fashion-MNIST?",
        config=DetectionConfig,
        measure="experiments:detection",
        claims=_claims,
        blocks=_blocks,
        names=NAMES,
    ),
)
