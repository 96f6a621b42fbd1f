"""What the paper claims about CIFAR-10, judged by the cells of figures 3 and 9."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from isthmus.studies.closer_look import restarts
from isthmus.studies.old.evidence import (
    ClaimResult,
    Estimate,
    Verdict,
    any_of,
    bonferroni,
    difference,
    exceeds,
    falls_below,
    gap,
    percent,
    points,
    share,
)
from isthmus.studies.old.image_models import healthy, standing
from isthmus.studies.old.study import StudyRecord

ADVERSARIALLY_TRAINED = 0.458
"""Accuracy under this PGD that Madry et al. 2018 report for their adversarially trained network."""
LEFT = 0.01
"""A robust accuracy below which a network has none."""
OVERSTATED = 0.05
"""A share of all images that the ensemble breaks beyond a single run, from which on that run misled."""


def cells_of(record: StudyRecord, attack: str, kind: str, knob: float | None = None) -> list[Mapping[str, Any]]:
    """Cells of models that did not collapse, for "pgd" or the "ensemble"; of one value of the trade-off if given."""
    wanted = {"attack": attack, "objective": kind}
    return healthy(record, **wanted) if knob is None else healthy(record, **wanted, knob=knob)


def single(cells: Sequence[Mapping[str, Any]], mode: str = "mean") -> list[int]:
    """Images that stand after one run of PGD, model by model."""
    return standing(cells, mode, "standing", 1)


def after_all(cells: Sequence[Mapping[str, Any]], mode: str = "mean") -> list[int]:
    """Images that stand after the ensemble, model by model."""
    return standing(cells, mode, "left")


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's claims about single runs, restarts and the ensemble, in mean mode."""
    name = record.config["kind"].upper()
    plain, ours = (cells_of(record, "ensemble", kind) for kind in ("determ", record.config["kind"]))
    if not plain or not ours:
        reason = "Every bottleneck, or every deterministic network, collapsed or is not there."
        return [ClaimResult(claim=f"{name} under attack.", verdict=Verdict.UNDECIDED, reason=reason)]
    found = [_beats_adversarial_training(record)]
    reference = cells_of(record, "pgd", record.config["kind"], record.config["reference"])
    if reference:
        model = f"{name} with {knob_text(record, record.config['reference'])}"
        claim = f"Restarts of PGD reduce what is left of {model} considerably."
        found.append(restarts.overstated(claim, reference, "mean"))
    found.append(_nothing_left(record))
    return [*found, _more_than_single(record, name), _some_are_better(record, name)]


def _beats_adversarial_training(record: StudyRecord) -> ClaimResult:
    cells = cells_of(record, "pgd", "determ")
    level = bonferroni(len(cells))
    each = [share([count], cells[0]["n"], level) for count in single(cells)]
    best = max(each, key=lambda one: one.value)
    return ClaimResult(
        claim="Some deterministic networks stand a single run of PGD better than an adversarially trained one.",
        verdict=any_of([exceeds(one, ADVERSARIALLY_TRAINED, least_seeds=1) for one in each]),
        reason=f"The best of {len(each)} keeps {best}; above {percent(ADVERSARIALLY_TRAINED)} counts.",
    )


def _nothing_left(record: StudyRecord) -> ClaimResult:
    left = share(after_all(cells := cells_of(record, "ensemble", "determ")), cells[0]["n"])
    return ClaimResult(
        claim="Under AA+MT deterministic networks have no robust accuracy.",
        verdict=falls_below(left, LEFT),
        reason=f"{left} is left; below {percent(LEFT)} counts.",
    )


def _more_than_single(record: StudyRecord, name: str) -> ClaimResult:
    kind, reference = record.config["kind"], record.config["reference"]
    weak, strong = (cells_of(record, attack, kind, reference) for attack in ("pgd", "ensemble"))
    claim = f"A single run of PGD overstates {name} with {knob_text(record, reference)}."
    if not weak or len(weak) != len(strong):
        return ClaimResult(claim=claim, verdict=Verdict.UNDECIDED, reason="Every run collapsed.")
    lead = gap(single(weak), after_all(strong), weak[0]["n"])
    reason = f"AA+MT leaves {lead} less standing; more than {points(OVERSTATED)} count."
    return ClaimResult(claim=claim, verdict=exceeds(lead, OVERSTATED), reason=reason)


def _some_are_better(record: StudyRecord, name: str) -> ClaimResult:
    plain = cells_of(record, "ensemble", "determ")
    ours = cells_of(record, "ensemble", record.config["kind"])
    n, level = ours[0]["n"], bonferroni(len(ours))
    baseline = share(after_all(plain), n, level)
    leads: list[tuple[Estimate, Mapping[str, Any]]] = [
        (difference(share([count], n, level), baseline), cell)
        for count, cell in zip(after_all(ours), ours, strict=True)
    ]
    best, cell = max(leads, key=lambda pair: pair[0].value)
    return ClaimResult(
        claim=f"Some {name} models are better than the deterministic ones under AA+MT.",
        verdict=any_of([exceeds(replace(lead, seeds=baseline.seeds), 0.0) for lead, _ in leads]),
        reason=f"The best of {len(ours)} ({knob_text(record, cell['knob'])}, seed {cell['seed']}) is ahead by {best} "
        "of the deterministic networks' mean; above 0 counts.",
    )


def knob_text(record: StudyRecord, value: float) -> str:
    """A value of the trade-off with its name: "ρ = 3"."""
    return f"{'ρ' if record.config['kind'] == 'ceb' else 'β'} = {value:g}"
