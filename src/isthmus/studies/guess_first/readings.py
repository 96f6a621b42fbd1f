"""How a record of these studies is read: counts by model, attack and size, their means over seeds, and leads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from isthmus.studies.guess_first.printed import Row
from isthmus.studies.old.evidence import LEAST_SEEDS, ClaimResult, Estimate, Verdict, gap, percent, share
from isthmus.studies.old.image_models import healthy
from isthmus.studies.old.study import StudyRecord

ATTACKS = {"fgsm": "FGSM", "pgd": "PGD", "cw": "C&W"}
BOXES = {"black": "black-box", "white": "white-box"}
OF_MODELS = "Ours: of the models measured, not of the way to train them: "
"""How a finding begins that says of few runs what they cannot say of others."""
Cells = dict[int, Mapping[str, Any]]
"""By seed."""


class NotMeasured(LookupError):
    """A number that a claim needs is not in the record."""


def cells(record: StudyRecord, trial: str, model: str) -> Cells:
    """A model's cells of one trial, without collapsed runs."""
    return {cell["seed"]: cell for cell in healthy(record, trial=trial, model=model)}


def models(record: StudyRecord) -> list[str]:
    """Models of the study with a run that did not collapse, in the paper's order."""
    return [name for name in record.config["models"] if cells(record, "white-box", name)]


def counts(record: StudyRecord, row: Row, model: str) -> dict[int, int]:
    """Images that are right, or stand, by seed; empty where nothing was measured."""
    if row.box == "clean":
        found = cells(record, "white-box", model)
        return {seed: round(cell["test_accuracy"] * cell["tested"]) for seed, cell in found.items()}
    return {seed: _at(attacks[row.attack], row.eps) for seed, attacks in _attacks(record, row.box, model).items()}


def _attacks(record: StudyRecord, box: str, model: str) -> dict[int, Mapping[str, Any]]:
    if box == "white":
        return {seed: cell["attacks"] for seed, cell in cells(record, "white-box", model).items()}
    victims = {cell["seed"]: cell["victims"].get(model) for cell in healthy(record, trial="black-box")}
    return {seed: victim["attacks"] for seed, victim in victims.items() if victim and not victim["collapsed"]}


def _at(curve: Mapping[str, Any], eps: float) -> int:
    """A curve's count at one size of its grid."""
    return int(curve["standing"][curve["eps"].index(eps)])


def tested(record: StudyRecord, row: Row) -> int:
    """On how many images a row's counts are; clean accuracy is of the whole test set.

    Raises:
        NotMeasured: there is no model.
    """
    cell = next(iter(record.each(trial="white-box")), None)
    if cell is None:
        raise NotMeasured("no model could be trained")
    return int(cell["tested"] if row.box == "clean" else cell["n"])


def accuracy(record: StudyRecord, row: Row, model: str) -> Estimate | None:
    """Mean over seeds of the accuracy that is left; None where nothing was measured."""
    found = counts(record, row, model)
    return share(list(found.values()), tested(record, row)) if found else None


def lead(record: StudyRecord, row: Row, first: str, second: str, level: float = 0.95) -> Estimate:
    """By how much the first model stands better than the second, over the seeds that both have.

    Raises:
        NotMeasured: there is no such seed.
    """
    ours, theirs = (counts(record, row, name) for name in (first, second))
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        raise NotMeasured(f"there is no seed with a run of both {first} and {second} that did not collapse")
    return gap([ours[seed] for seed in shared], [theirs[seed] for seed in shared], tested(record, row), level)


def left(record: StudyRecord, norm: str, eps: float, model: str) -> dict[int, int]:
    """Images that stand after the ensemble, by seed."""
    return {seed: _at(cell["left"][norm], eps) for seed, cell in cells(record, "ensemble", model).items()}


def doubted(cell: Mapping[str, Any]) -> bool:
    """Whether the battery speaks against a model's robustness: the verdict does not hold, or a test failed."""
    return cell["verdict"] != "holds" or bool(failed_tests(cell))


def failed_tests(cell: Mapping[str, Any]) -> list[str]:
    """Names of the battery's tests that failed on a model."""
    return [test for test, (status, _) in cell["tests"].items() if status == "fail"]


def called(row: Row) -> str:
    """A row in words: "black-box FGSM at ℓ∞ 0.15"."""
    if row.box == "clean":
        return "clean images"
    return f"{BOXES[row.box]} {ATTACKS[row.attack]} at {'ℓ2' if row.attack == 'cw' else 'ℓ∞'} {row.eps:g}"


def numbers(record: StudyRecord, row: Row, names: Sequence[str]) -> str:
    """Means in a line: "CNN 65.6%, C-DV 84.7%"; models that were not measured are left out."""
    values = {name: accuracy(record, row, name) for name in names}
    return ", ".join(f"{name} {percent(value.value)}" for name, value in values.items() if value is not None)


def about_training(claim: str, judge: Callable[[int], tuple[Verdict, str]]) -> list[ClaimResult]:
    """A finding about a way of training; where seeds are what it lacks, also one about the very models measured.

    One or two runs say nothing about other seeds. Of themselves they may say much: then only the choice of images is
    left to chance, and the second finding is judged by that.

    Args:
        judge: from the number of seeds below which nothing is decided to a verdict and its reason.
    """
    found = [settled(claim, lambda: judge(LEAST_SEEDS))]
    if found[0].verdict is Verdict.UNDECIDED:
        of_models = settled(f"{OF_MODELS}{claim.removeprefix('Ours: ')}", lambda: judge(1))
        found += [of_models] if of_models.verdict is not Verdict.UNDECIDED else []
    return found


def settled(claim: str, judge: Callable[[], tuple[Verdict, str]]) -> ClaimResult:
    """A finding; undecided where a number is missing."""
    try:
        verdict, reason = judge()
    except NotMeasured as error:
        verdict, reason = Verdict.UNDECIDED, f"Not measured: {error}."
    return ClaimResult(claim=claim, verdict=verdict, reason=reason)
