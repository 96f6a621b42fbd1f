"""How much accuracy does VIB keep on MNIST under the one-step attack, and does that say anything?

Section 3.1: VIB for a grid of β, in mean mode and with 12 samples, beside a deterministic network of the same shape,
under FGS (:mod:`isthmus.attacks.fgsm`) at ε = 0.2, 0.35 and 0.5. At 0.5 every image can be made the same grey, so that
whatever stands above chance stands because the attack is weak.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from isthmus.core.types import Figure, Mark, Section, Series, Table
from isthmus.studies import catalogue
from isthmus.studies.closer_look import presets
from isthmus.studies.old import image_models
from isthmus.studies.old.drawing import Row, band, dots
from isthmus.studies.old.evidence import (
    ClaimResult,
    Verdict,
    all_of,
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
from isthmus.studies.old.image_models import NAMES, estimate, healthy, standing
from isthmus.studies.old.study import Beta, StudyRecord, scales
from isthmus.studies.store import ResultStore, Stages

DETERM = "deterministic"
GREY = 0.5
"""The ε from which on every image can be made uniformly grey."""
MODES_DIFFER = 0.01
"""A difference of accuracies from which on two modes do not give the same results."""


class Config(presets.MnistConfig):
    """MNIST as in the appendix.

    Attributes:
        betas: weights of the rate; the paper says that 0.01 was among them and draws 0.001 to 0.1.
        best: the β at which the paper saw most robustness, and about which it makes its claims.
        eps: of FGS.
    """

    betas: Annotated[tuple[Beta, ...], Field(min_length=1)] = (0.001, 0.003, 0.01, 0.03, 0.1)
    best: Beta = 0.01
    eps: Annotated[tuple[image_models.Eps, ...], Field(min_length=1)] = (0.2, 0.35, 0.5)


SCALES = scales(
    Config,
    tiny={**presets.DIGITS_TINY, "betas": (0.01, 0.1)},
    small={**presets.MNIST_SMALL, "images": 1000, "betas": (0.001, 0.01, 0.1)},
)


def cells(config: Config, bench: ResultStore) -> Stages:
    """Every model under FGS."""
    from isthmus.studies.closer_look.attacked import one_step
    from isthmus.studies.old.laboratory import Laboratory

    laboratory, trial = Laboratory(config, bench), one_step(config.eps)
    models: list[tuple[image_models.Kind, float | None]] = [("determ", None), *(("vib", b) for b in config.betas)]
    yield [laboratory.cell(*model, seed, trial) for seed in range(config.seeds) for model in models]


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's four claims, for each mode where they are about one."""
    best = healthy(record, objective="vib", knob=record.config["best"])
    plain = healthy(record, objective="determ")
    if not best or not plain:
        reason = (
            f"No model with β = {record.config['best']:g}, or no deterministic one, is there that did not collapse."
        )
        return [ClaimResult(claim="VIB under FGS.", verdict=Verdict.UNDECIDED, reason=reason)]
    modes = image_models.claimed(best)
    claims = (_gain, _above_chance, _peak)
    found = [claim(record, mode) for claim in claims for mode in modes]
    return [*found, _modes_differ(record)] if len(modes) > 1 else found


def _gain(record: StudyRecord, mode: str) -> ClaimResult:
    beta, eps = record.config["best"], f"{min(record.config['eps']):g}"
    best, plain = healthy(record, objective="vib", knob=beta), healthy(record, objective="determ")
    gain = difference(estimate(best, mode, "fgsm", eps), estimate(plain, "mean", "fgsm", eps))
    return ClaimResult(
        claim=f"VIB with β = {beta:g} keeps more accuracy under FGS than the deterministic network ({NAMES[mode]}).",
        verdict=exceeds(gain, 0.0),
        reason=f"At ε = {eps} the difference is {gain}; above 0 counts.",
    )


def _above_chance(record: StudyRecord, mode: str) -> ClaimResult:
    beta, eps = record.config["best"], max(record.config["eps"])
    claim = (
        f"It keeps more than chance at ε = {eps:g}, where no classifier can: the attack is at fault ({NAMES[mode]})."
    )
    if eps < GREY:
        reason = f"ε = {eps:g} does not reach uniform grey; {GREY:g} does."
        return ClaimResult(claim=claim, verdict=Verdict.UNDECIDED, reason=reason)
    best = healthy(record, objective="vib", knob=beta)
    left, chance = estimate(best, mode, "fgsm", f"{eps:g}"), best[0]["chance"]
    reason = f"What stands: {left}; one answer for all images would be right for {percent(chance)} of them."
    return ClaimResult(claim=claim, verdict=exceeds(left, chance), reason=reason)


def _peak(record: StudyRecord, mode: str) -> ClaimResult:
    beta, eps = record.config["best"], f"{min(record.config['eps']):g}"
    others = [b for b in record.config["betas"] if b != beta and healthy(record, objective="vib", knob=b)]
    claim = f"Among all β, {beta:g} keeps most ({NAMES[mode]})."
    if not others:
        return ClaimResult(claim=claim, verdict=Verdict.UNDECIDED, reason="There is no other β to compare with.")
    level = bonferroni(len(others))

    def at(b: float) -> tuple[list[int], int]:
        cells = healthy(record, objective="vib", knob=b)
        return standing(cells, mode, "fgsm", eps), cells[0]["n"]

    best, n = at(beta)
    leads = {b: difference(share(best, n, level), share(at(b)[0], n, level)) for b in others}
    rival = min(leads, key=lambda b: leads[b].value)
    return ClaimResult(
        claim=claim,
        verdict=all_of([exceeds(lead, 0.0) for lead in leads.values()]),
        reason=f"At ε = {eps} its nearest rival is β = {rival:g}, from which it differs by {leads[rival]}; above 0 "
        "for each β counts.",
    )


def _modes_differ(record: StudyRecord) -> ClaimResult:
    beta, eps = record.config["best"], f"{min(record.config['eps']):g}"
    best = healthy(record, objective="vib", knob=beta)
    n = best[0]["n"]
    mean, stochastic = (standing(best, mode, "fgsm", eps) for mode in ("mean", "stochastic"))
    lead = gap(mean, stochastic, n)
    apart = any_of([exceeds(lead, MODES_DIFFER), falls_below(lead, -MODES_DIFFER)])
    return ClaimResult(
        claim="Mean and stochastic mode do not give the same results.",
        verdict=apart,
        reason=f"With β = {beta:g} at ε = {eps} mean less stochastic mode is {lead}; {points(MODES_DIFFER)} either "
        "way count.",
    )


def section(record: StudyRecord) -> Section:
    """Accuracy under FGS over β, a figure for each ε, and clean accuracy."""
    panels = [_figure(record, f"{eps:g}") for eps in record.config["eps"]]
    blocks: tuple[Figure | Table, ...] = (*panels, _figure(record, None), _table(record))
    return Section("Figure 1: VIB on MNIST under FGS", catalogue.question(record.study), blocks)


def _figure(record: StudyRecord, eps: str | None) -> Figure:
    path = ("clean",) if eps is None else ("fgsm", eps)
    found = healthy(record, objective="vib")
    x = [math.log10(cell["knob"]) for cell in found]
    n = found[0]["n"] if found else 1
    series: list[Series] = [
        dots(f"VIB, {NAMES[mode]}", x, standing(found, mode, *path), n) for mode in image_models.modes(found)
    ]
    plain = healthy(record, objective="determ")
    if plain and found:
        level = estimate(plain, "mean", *path)
        series.append(band(DETERM, (min(x), max(x)), (level, level)))
    chance = found[0]["chance"] if found else 0.1
    return Figure(
        title="Clean images" if eps is None else f"FGS, ε = {eps}",
        reading=_reading(record, path),
        x_label="log₁₀ β (weight of the rate); one point a model",
        y_label="fraction right",
        series=tuple(series),
        marks=() if eps is None else (Mark("one answer for all", y=chance),),
        y_range=None if eps is None else (0.0, 1.0),
    )


def _reading(record: StudyRecord, path: tuple[str, ...]) -> str:
    best, plain = healthy(record, objective="vib", knob=record.config["best"]), healthy(record, objective="determ")
    if not best or not plain:
        return "Not measured yet."
    parts = [f"{estimate(best, mode, *path)} in {NAMES[mode]}" for mode in image_models.modes(best)]
    own = estimate(plain, "mean", *path)
    return f"VIB with β = {record.config['best']:g}: {' and '.join(parts)}. Deterministic: {own}."


def _table(record: StudyRecord) -> Table:
    collapsed = sum(cell["collapsed"] for cell in record.cells.values())
    knobs: list[tuple[str, float | None]] = [("determ", None), *(("vib", beta) for beta in record.config["betas"])]
    rows: list[Row] = []
    for objective, knob in knobs:
        cells = healthy(record, objective=objective, knob=knob)
        for mode in image_models.modes(cells):
            name = DETERM if knob is None else f"β = {knob:g}, {NAMES[mode]}"
            under = [estimate(cells, mode, "fgsm", f"{eps:g}").metric for eps in record.config["eps"]]
            rows.append(
                (name, len(cells), estimate(cells, mode, "clean").metric, *under, image_models.blind(cells, mode))
            )
    return Table(
        title="Means over seeds",
        reading=f"{collapsed} collapsed models are left out. Zero gradients: share of images at which the "
        "cross-entropy's gradient is exactly zero in float32, so that FGS moves nothing.",
        columns=("model", "seeds", "clean", *(f"FGS {eps:g}" for eps in record.config["eps"]), "zero gradients"),
        rows=tuple(rows),
    )
