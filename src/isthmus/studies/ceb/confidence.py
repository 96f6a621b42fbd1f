"""Out-of-distribution detection (table 1) and calibration (figure 5) on Fashion-MNIST, of Fischer 2020."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from isthmus.core.types import Coordinate, Figure, Mark, Table
from isthmus.metrics import Bin
from isthmus.report.sections.common import bin_series
from isthmus.studies.blocks import Block, Curves, Pivot
from isthmus.studies.ceb.configs import OBJECTIVES, CalibrationConfig, DetectionConfig
from isthmus.studies.claims import Claim, Comparison, OtherClaim
from isthmus.studies.estimates import percent
from isthmus.studies.paper_values import paper_values
from isthmus.studies.quantities import Quantity, Select, select
from isthmus.studies.rows import Rows
from isthmus.studies.study import Study, StudyRecord
from isthmus.studies.verdicts import Verdict

Model = Mapping[str, Coordinate | None]
DETERM: Model = {"objective": "determ", "rho": None}
VIB_4: Model = {"objective": "vib", "rho": 4.0}
VIB_2: Model = {"objective": "vib", "rho": 2.0}
VIB_0: Model = {"objective": "vib", "rho": 0.0}
CEB_0: Model = {"objective": "ceb", "rho": 0.0}
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
"""A false positive rate below this is "saturated"; printed are 0.0% and 0.1%."""
DIGIT = 0.0005
"""What the printed tenth of a percent leaves open, on either side."""
NEARLY_PERFECT = 0.03
"""An expected calibration error below this counts as nearly perfect."""
TPR = 0.95
"""At which the false positive rate is measured."""

_TABLE, _FIGURE = "Entropy, Table 1", "Entropy, Section 3.1.4 and Figure 5"


def named(model: Model) -> str:
    """A model in a sentence: "CEB, ρ = 0"."""
    name, rho = OBJECTIVES[str(model["objective"])], model.get("rho")
    return f"the {name} network" if rho is None else f"{name}, ρ = {rho:g}"


def _by(name: str, model: Model, score: str) -> Select:
    return select(name, mode="mean", score=score).at(**model)


def _auroc_gap(text: str, one: Quantity, other: Quantity) -> Claim:
    return Claim(text, left=one, right=other, over=("out",), about="difference in AUROC", place=_TABLE)


def _detection_claims(config: DetectionConfig) -> list[Claim | OtherClaim]:
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

    The ROC curve rises: from that false positive rate on it lies at 95% at least.
    """
    return TPR * (1 - fpr)


def impossible_rows() -> list[tuple[str, str, float, float]]:
    """Printed rows that no scores have: out-distribution, model, false positive rate and AUROC."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for each in paper_values("ceb", "detection"):
        model = {"objective": each.coords["objective"], "rho": each.coords.get("rho")}
        found.setdefault((OUTS[each.coords["out"]], named(model)), {})[each.metric] = each.value
    rows = [(*place, values["FPR at 95% TPR"], values["AUROC"]) for place, values in found.items()]
    return [row for row in rows if row[3] + DIGIT < least_auroc(row[2] + DIGIT)]


def _possible(_: Rows) -> tuple[Verdict, str]:
    """Whether the printed numbers agree with one another; no measurement of ours is in it."""
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


def _detection_blocks(config: DetectionConfig) -> list[Block]:
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


def _calibration_claims(config: CalibrationConfig) -> list[Claim]:
    steps = sorted(config.training.get("snapshots", ())) or [0]
    first, middle, last = (steps[0], steps[len(steps) // 2], steps[-1] if len(steps) > 1 else 0)  # no row has step 0
    over, error = select("overconfidence"), select("ece")
    models: list[Model] = [{"objective": name, "rho": rho} for name, rho in config.bottlenecks]

    def at_end(model: Model) -> Select:
        return over.at(**model, step=last)

    return [
        *(
            Claim(
                f"{_sentence(model)} moves from under- to overconfidence while it trains.",
                left=over.at(**model, step=first),
                op="<",
                about=f"mean confidence less accuracy after {first:,} steps",
                also=(Comparison(left=at_end(model), about=f"the same after {last:,}"),),
                place=_FIGURE,
            )
            for model in (*models, DETERM)
        ),
        *(
            Claim(
                f"{_sentence(model)} ends up less overconfident than the deterministic network.",
                left=at_end(DETERM),
                right=at_end(model),
                about=f"overconfidence of the deterministic network after {last:,} steps less that of the bottleneck",
                place=_FIGURE,
            )
            for model in (CEB_0, VIB_0)
        ),
        Claim(
            "At ρ = 2 VIB is nearly as overconfident as the deterministic network: nearer to it than to VIB, ρ = 0.",
            left=at_end(VIB_2) - at_end(VIB_0),
            right=at_end(DETERM) - at_end(VIB_2),
            about=f"distance in overconfidence after {last:,} steps from VIB, ρ = 0, less that from the deterministic "
            "network",
            place=_FIGURE,
        ),
        *(
            Claim(
                f"{_sentence(model)} is still nearly perfectly calibrated midway.",
                left=error.at(**model, step=middle),
                op="<",
                right=NEARLY_PERFECT,
                about=f"expected calibration error after {middle:,} steps",
                place=_FIGURE,
            )
            for model in (CEB_0, VIB_0)
        ),
    ]


def _sentence(model: Model) -> str:
    text = named(model)
    return text[0].upper() + text[1:]


def _diagrams(record: StudyRecord, _: CalibrationConfig) -> Iterator[Figure]:
    """A reliability diagram for each model of the first seed; bins of several seeds have different confidences."""
    for each in record.experiments.values():
        if "bins" in each.details and not each.collapsed:
            coords = each.metrics[0].coords
            bins = {step: [Bin.model_validate(one) for one in found] for step, found in each.details["bins"].items()}
            yield Figure(
                title=_sentence({"objective": coords["objective"], "rho": coords.get("rho")}),
                reading=f"Points of seed {coords['seed']}, with 90% intervals; above the diagonal the model is "
                "underconfident.",
                x_label="mean confidence of the bin",
                y_label="accuracy in the bin",
                series=tuple(bin_series(f"{int(step):,} steps", found) for step, found in bins.items()),
                x_range=(0.0, 1.0),
                y_range=(0.0, 1.0),
                identity=True,
            )


def _over_steps(name: str, title: str, marks: tuple[Mark, ...] = ()) -> Curves:
    return Curves(
        title=title,
        reading="Means over seeds.",
        y=select(name),
        x="step",
        lines=("objective", "rho"),
        x_label="step",
        y_label="fraction",
        interval=True,
        marks=marks,
    )


_CALIBRATION_BLOCKS: tuple[Block, ...] = (
    _diagrams,
    _over_steps("overconfidence", "Mean confidence less accuracy", (Mark("calibrated", y=0.0),)),
    _over_steps("ece", "Expected calibration error"),
    Pivot(
        title="Accuracy and calibration over steps",
        reading="Means over seeds, in mean mode. NLL in nats.",
        rows=("objective", "rho", "step"),
        columns={
            "accuracy": select("accuracy"),
            "mean confidence less accuracy": select("overconfidence"),
            "expected calibration error": select("ece"),
            "NLL": select("nll"),
            "Brier": select("brier"),
        },
    ),
)

_EXPERIMENTS = "isthmus.studies.ceb.experiments"
STUDIES = (
    Study(
        name="ceb/detection",
        title="Table 1: out-of-distribution detection on Fashion-MNIST",
        question="How well do the entropy of a deterministic network and the rate of bottlenecks detect "
        "out-of-distribution images on Fashion-MNIST?",
        config=DetectionConfig,
        measure=f"{_EXPERIMENTS}:detection",
        claims=_detection_claims,
        blocks=_detection_blocks,
        names=NAMES,
    ),
    Study(
        name="ceb/calibration",
        title="Figure 5: calibration while training",
        question="How does the calibration of CEB, VIB and a deterministic network on Fashion-MNIST change while they "
        "train?",
        config=CalibrationConfig,
        measure=f"{_EXPERIMENTS}:calibration",
        claims=_calibration_claims,
        blocks=_CALIBRATION_BLOCKS,
        names=OBJECTIVES,
    ),
)
