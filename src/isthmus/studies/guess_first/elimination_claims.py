"""Whether the elimination does what it is meant to: claims about the representations, judged by the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from isthmus.studies.guess_first.readings import Cells, NotMeasured, about_training, settled
from isthmus.studies.guess_first.readings import cells as cells_of
from isthmus.studies.old.evidence import (
    ClaimResult,
    Estimate,
    Verdict,
    all_of,
    bonferroni,
    exceeds,
    falls_below,
    gap,
    half_width,
    over_seeds,
    percent,
    points,
    share,
)
from isthmus.studies.old.study import StudyRecord

PAIRS = (("C-DV", "C-DV-IE"), ("C-JS", "C-JS-IE"))
ABOVE_CHANCE = 0.1
"""By how much a probe surely has to exceed chance to have told anything."""
WELL = 0.5
"""Share of a hypothesis's own images from which on they are recognised."""
Model = Mapping[str, Any]


def findings(record: StudyRecord) -> list[ClaimResult]:
    """That MMD² falls and the probe tells less, as intended; appendix D; ours: what is left all the same."""
    return [
        *(each for pair in PAIRS for each in _discrepancy_falls(record, *pair)),
        *(each for pair in PAIRS for each in _probe_falls(record, *pair)),
        *(each for pair in PAIRS for each in _moves_less(record, *pair)),
        _label_left(record),
        _hypothesis_left(record),
    ]


def cells(record: StudyRecord, name: str) -> Cells:
    """A model's cells by seed, without collapsed runs."""
    return cells_of(record, "representations", name)


def total(found: Sequence[Model]) -> Estimate:
    """Σ over hypotheses of the unbiased MMD², mean over seeds; the interval is of blocks of images and of seeds.

    The unit is MMD²'s own; the estimate is not meant to be written as nats.
    """
    values = [sum(cell["unbiased"]) for cell in found]
    return _mean(values, fmean(_image_spread(cell) for cell in found), found[0]["n"])


def at(found: Sequence[Model], hypothesis: int) -> Estimate:
    """The same under one hypothesis."""
    spread = fmean(half_width(cell["in_blocks"][hypothesis], 0.95) for cell in found)
    return _mean([cell["unbiased"][hypothesis] for cell in found], spread, found[0]["n"])


def _image_spread(cell: Model) -> float:
    """Half of the t interval of the sum over hypotheses, from the same blocks under each."""
    number = min(map(len, cell["in_blocks"]))
    return half_width([sum(under[block] for under in cell["in_blocks"]) for block in range(number)], 0.95)


def _mean(values: Sequence[float], images: float, n: int) -> Estimate:
    return over_seeds(values, (images, images), n, unit="nats", of_images="t over blocks")


def plainly(estimate: Estimate) -> str:
    """An estimate of MMD², which has no unit: "0.412 (95% interval 0.380 to 0.444, n = 2,000, 2 seeds)"."""
    reach = estimate.reach(f"{estimate.low:.3f}", f"{estimate.high:.3f}")
    return f"{estimate.value:.3f} ({reach})".replace("-", "−")


def told(found: Sequence[Model]) -> list[int]:
    """Images of which the probe tells the class, mean over hypotheses, seed by seed."""
    return [round(fmean(cell["told"])) for cell in found]


def _both(record: StudyRecord, plain: str, eliminated: str) -> tuple[list[Model], list[Model]]:
    without, with_it = cells(record, plain), cells(record, eliminated)
    seeds = sorted(set(without) & set(with_it))
    if not seeds:
        raise NotMeasured(f"there is no seed with a run of both {plain} and {eliminated} that did not collapse")
    return [without[seed] for seed in seeds], [with_it[seed] for seed in seeds]


def _discrepancy_falls(record: StudyRecord, plain: str, eliminated: str) -> list[ClaimResult]:
    claim = f"The elimination makes representations of {plain} less different between labels, by MMD²."

    def judge(least_seeds: int) -> tuple[Verdict, str]:
        without, with_it = _both(record, plain, eliminated)
        falls = [sum(a["unbiased"]) - sum(b["unbiased"]) for a, b in zip(without, with_it, strict=True)]
        images = math.hypot(*(fmean(map(_image_spread, each)) for each in (without, with_it)))
        fall = _mean(falls, images, without[0]["n"])
        return exceeds(fall, 0.0, least_seeds), (
            f"Summed over hypotheses, unbiased, {plain} has {plainly(total(without))}, {eliminated} "
            f"{plainly(total(with_it))}. The difference is {plainly(fall)}; above 0 counts."
        )

    return about_training(claim, judge)


def _probe_falls(record: StudyRecord, plain: str, eliminated: str) -> list[ClaimResult]:
    claim = f"It leaves a linear probe less of the true label: {eliminated} against {plain}."

    def judge(least_seeds: int) -> tuple[Verdict, str]:
        without, with_it = _both(record, plain, eliminated)
        n = without[0]["n"]
        fall = gap(told(without), told(with_it), n)
        return exceeds(fall, 0.0, least_seeds), (
            f"Mean over hypotheses: {share(told(with_it), n)} after {share(told(without), n)}, {fall} less; above 0 "
            "counts."
        )

    return about_training(claim, judge)


def log_fisher(found: Sequence[Model], part: str) -> Estimate:
    """Mean over images and seeds of ln tr J(x) ("trace") or ln λ ("largest") of the prediction, in nats.

    Raises:
        NotMeasured: the record is from before it was measured.
    """
    if any("fisher" not in cell for cell in found):
        raise NotMeasured("the record has no Fisher information; run the study again")
    measured = [cell["fisher"][part] for cell in found]
    reach, n = _fisher_spread(found, part), found[0]["fisher"]["n"]
    return over_seeds([each[0] for each in measured], (reach, reach), n, unit="nats", of_images="bootstrap")


def _fisher_spread(found: Sequence[Model], part: str = "largest") -> float:
    """How far the choice of images reaches from the mean: half of a bootstrap's interval, mean over seeds."""
    return fmean((cell["fisher"][part][2] - cell["fisher"][part][1]) / 2 for cell in found)


def _moves_less(record: StudyRecord, plain: str, eliminated: str) -> list[ClaimResult]:
    claim = f"As appendix D expects, a small perturbation moves the prediction of {eliminated} less than {plain}'s."

    def judge(least_seeds: int) -> tuple[Verdict, str]:
        without, with_it = _both(record, plain, eliminated)
        before, after = log_fisher(without, "largest"), log_fisher(with_it, "largest")
        values = [b["fisher"]["largest"][0] - a["fisher"]["largest"][0] for a, b in zip(without, with_it, strict=True)]
        reach = math.hypot(*(_fisher_spread(each) for each in (without, with_it)))
        change = over_seeds(values, (reach, reach), before.n, unit="nats", of_images="bootstrap")
        return falls_below(change, 0.0, least_seeds), (
            f"ln of the largest eigenvalue of its Fisher information about the image, mean over images: {after} after "
            f"{before}. The change is {change}; below 0 counts."
        )

    return about_training(claim, judge)


def _eliminated(record: StudyRecord) -> dict[str, Model]:
    found = {f"{name}, seed {seed}": cell for _, name in PAIRS for seed, cell in cells(record, name).items()}
    if not found:
        raise NotMeasured("no run with elimination that did not collapse")
    return found


def _label_left(record: StudyRecord) -> ClaimResult:
    claim = "Ours: even so, a linear probe tells the true label under every hypothesis of every model measured."

    def judge() -> tuple[Verdict, str]:
        found = _eliminated(record)
        level = bonferroni(sum(len(cell["told"]) for cell in found.values()))
        each = {
            (name, under): share([count], cell["n"], level)
            for name, cell in found.items()
            for under, count in enumerate(cell["told"])
        }
        least = min(each, key=lambda key: each[key].value)
        limit = max(cell["chance"] for cell in found.values()) + ABOVE_CHANCE
        return all_of([exceeds(one, limit, least_seeds=1) for one in each.values()]), (
            f"Least for {least[0]}, under hypothesis {least[1]}: {each[least]}, where chance is "
            f"{percent(limit - ABOVE_CHANCE)}. {points(ABOVE_CHANCE)} above that count (corrected for {len(each)})."
        )

    return settled(claim, judge)


def _hypothesis_left(record: StudyRecord) -> ClaimResult:
    claim = "Ours: whether the hypothesis is true is still there to be told, in every model measured."

    def judge() -> tuple[Verdict, str]:
        found = _eliminated(record)
        level = bonferroni(sum(len(cell["own"]) for cell in found.values()))
        each = {
            (name, under): share([right], n, level)
            for name, cell in found.items()
            for under, (right, n) in enumerate(cell["own"])
        }
        least = min(each, key=lambda key: each[key].value)
        return all_of([exceeds(one, WELL, least_seeds=1) for one in each.values()]), (
            f"The probe recognises the fewest of a hypothesis's own images for {least[0]}, under {least[1]}: "
            f"{each[least]}; more than {percent(WELL)} counts (corrected for {len(each)}). A model that classifies "
            "has to keep this: its score is a function of the representation, and can tell no more than that does."
        )

    return settled(claim, judge)
