"""Calibration while training on Fashion-MNIST: figure 5 of Fischer 2020."""

from __future__ import annotations

from collections.abc import Iterator

from isthmus.core.display import Figure, Mark
from isthmus.metrics import Bin
from isthmus.report.sections.common import bin_series
from isthmus.studies.blocks import Block, Curves, Pivot
from isthmus.studies.ceb.common import CEB_0, DETERM, VIB_0, VIB_2, Model, named
from isthmus.studies.ceb.configs import OBJECTIVES, CalibrationConfig
from isthmus.studies.claims import Claim, Comparison
from isthmus.studies.quantities import Select, select
from isthmus.studies.study import Study, StudyRecord

NEARLY_PERFECT = 0.03
"""An expected calibration error below this counts as nearly perfect."""

_FIGURE = "Entropy, Section 3.1.4 and Figure 5"


def _claims(config: CalibrationConfig) -> list[Claim]:
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


_BLOCKS: tuple[Block, ...] = (
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

STUDIES = (
    Study(
        name="ceb/calibration",
        title="Figure 5: calibration while training",
        question="How does the calibration of CEB, VIB and a deterministic network on Fashion-MNIST change while they "
        "train?",
        config=CalibrationConfig,
        measure="experiments:calibration",
        claims=_claims,
        blocks=_BLOCKS,
        names=OBJECTIVES,
    ),
)
