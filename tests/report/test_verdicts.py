"""The first screen: verdicts, and the sentences for a paper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isthmus.core.display import Finding
from isthmus.core.types import CheckResult, Status
from isthmus.report import blocks, page, verdicts
from isthmus.report.citation import citation, citations
from isthmus.report.loading import AuditedModel, load
from isthmus.report.sections import diagnosis as diagnosis_section
from isthmus.report.sections import robustness as robustness_section
from tests.report.report_standins import digits
from tests.report.test_page import Reader
from tests.report.verdict_standins import diagnosis, robustness


def models(run: Path, **found: CheckResult) -> list[AuditedModel]:
    """Audited models with these verdicts alone, by name."""
    base = replace(load(run), training=(), folder="run", adversarial="run/audit/adversarial.safetensors")
    return [replace(base, name=name, results={"diagnosis": result}) for name, result in found.items()]


def rows(run: Path, **found: CheckResult) -> list[verdicts.Verdict]:
    return verdicts.verdicts(models(run, **found))


def test_a_refuted_accuracy_is_an_alarm_with_its_failed_tests(runs: list[Path]) -> None:
    html = page.render(models(runs[0], a=diagnosis("overstated", 92, 51, failed=("steps", "restarts"))))
    assert 'class="verdict overstated excess m0"' in html
    assert "OVERSTATED" in Reader(html).words
    assert "92.0% reported, 41.0 points too high; failed tests: restarts and steps" in Reader(html).words


@pytest.mark.parametrize(
    ("result", "note"),
    [
        (diagnosis("holds", 58, 58), "58.0% reported"),
        (diagnosis("holds", 60, 58), "60.0% reported"),
        (
            diagnosis("holds", 60, 54, claimed=True),
            "60.0% claimed, not shown to differ at n\u00a0=\u00a0100; about 250 examples would decide",
        ),
        (
            diagnosis("holds", 13, 10, 20),
            "65.0% reported, not shown to differ at n\u00a0=\u00a020; about 29 examples would decide",
        ),
        (diagnosis("undecided", 58, 58), "58.0% reported; the model has no gradient"),
    ],
)
def test_an_accuracy_that_is_not_refuted_says_what_is_known(runs: list[Path], result: CheckResult, note: str) -> None:
    (row,) = rows(runs[0], a=result)
    assert row.note == note
    assert not row.alarm


def test_the_sentence_for_a_paper_has_everything(runs: list[Path]) -> None:
    found = models(runs[0], a=diagnosis("holds", 60, 58), b=diagnosis("holds", 58, 58))
    one, version = found[0], found[0].record.provenance["packages"]["isthmus"]
    (sentence,) = citations([one])
    data = one.record.data
    assert sentence.replace("\u00a0", " ") == (
        f"The robust accuracy of a on {data} at ℓ∞ 0.1 is at most 58.0% (95% interval 48.2–67.2, n = 100), "
        f"measured with isthmus {version}, seed 0. Verdict on the reported 60.0% "
        "(95% interval 50.2–69.1, n = 100): holds. "
        "Attacks: PGD and the suite fast; adversarial examples: run/audit/adversarial.safetensors."
    )
    assert sentence.startswith(citation(one))
    (both,) = citations(found)
    assert both.replace("\u00a0", " ") == (
        f"The robust accuracy on {data} at ℓ∞ 0.1 is at most 58.0% (48.2–67.2) for a and 58.0% (48.2–67.2) for b (95% "
        f"intervals, n = 100), measured with isthmus {version}, seed 0. Attacks: PGD and the suite fast; adversarial "
        "examples: audit/adversarial.safetensors of each run folder."
    )
    result = found[1].results["diagnosis"]
    modes = {"mean": result.details["modes"]["mean"] | {"follow_ups": {"random_search": {}}}}
    result = result.model_copy(update={"details": result.details | {"modes": modes}})
    (further,) = citations([one, replace(found[1], results={"diagnosis": result})])
    assert "Attacks: PGD and the suite fast; random search for b; adversarial examples: " in further
    other = replace(found[1], record=found[1].record.model_copy(update={"seed": 1}))
    assert len(citations([one, other])) == 2


def test_without_a_diagnosis_there_is_no_banner(runs: list[Path]) -> None:
    assert verdicts.verdicts([load(runs[0])]) == []
    (given,) = models(runs[0], a=diagnosis("holds", 58, 58))
    assert [row.word for row in verdicts.verdicts([given, load(runs[1])])] == ["holds", "no verdict"]


def test_equal_findings_are_merged() -> None:
    same, other = Finding(Status.PASS, "99.2%."), Finding(Status.WARN, "80%.")
    found = [("", name, same) for name in "abc"]
    assert [one.names for one in blocks.merged(found)] == ["all three"]
    assert [(one.names, one.reason) for one in blocks.merged([*found, ("", "d", other)])] == [
        ("a, b and c", "99.2%."),
        ("d", "80%."),
    ]


def test_the_evidence_is_a_grid_that_expands_what_did_not_pass() -> None:
    found = {"a": diagnosis("holds", 58, 58), "b": diagnosis("broken", 90, 2, failed=("steps",))}
    view = blocks._grid(diagnosis_section.section(found).blocks[0])
    assert (len(view.rows), view.names) == (13, ("a", "b"))
    assert [(one.title, one.names, one.word) for one in view.shown] == [("steps", "b", "fail")]
    assert len(view.folded) == 13


def test_adversarial_examples_are_compared_image_by_image() -> None:
    images = digits()
    found = {"a": robustness(images, (0, 1, 2)), "b": robustness(images, (1, 2, 3))}
    shown = robustness_section.section(found).blocks[-1]
    assert shown.columns == ("a", "b")
    order = (0, 3, 1, 2, 4, 5)  # the outcomes differ, both are broken, both are robust
    assert [original.caption for original, _ in shown.rows] == [f"image {i}, class {i}" for i in order]
    assert shown.rows[0][1][1] == "0\u00a0(99.0%): no adversarial example found"
    adversarial, difference = shown.rows[2][1][0]
    assert adversarial.caption == "1\u00a0(99.0%) → 9\u00a0(51.0%); PGD, ℓ∞\u00a00.098"
    assert difference.image.shape == (8, 8, 3)
    assert shown.key == ("darker by 0.078", "unchanged", "brighter by 0.078")


def test_other_images_at_the_same_place_are_not_mixed_up() -> None:
    images = digits()
    found = {"a": robustness(images, (0,)), "b": robustness(255 - images, (0,))}
    shown = robustness_section.section(found).blocks[-1]
    assert len(shown.rows) == 12
    assert all("not stored" in cells for _, cells in shown.rows)
    assert np.array_equal(
        np.sort([o.image.sum() for o, _ in shown.rows]),
        np.sort([*(i.sum() for i in images), *(i.sum() for i in 255 - images)]),
    )
