"""The scorecard: each question once, asked or not, with the number that its check gives."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from isthmus.core.display import Headline, Section
from isthmus.core.types import CheckResult, Metric, Metrics, Status
from isthmus.report import page, scorecard
from isthmus.report.loading import AuditedModel, load
from isthmus.report.scorecard import COLUMNS, QUESTIONS, Question
from tests.report import report_standins as standins
from tests.report import standin_checks
from tests.report.test_page import EVIL, Reader, only_script_is_pinned

MANY = COLUMNS + 1
Found = Mapping[str, CheckResult]


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections without figures, which take long to draw and are another test's business."""

    def bare(section: Callable[[Found], Section]) -> Callable[[Found], Section]:
        return lambda found: replace(section(found), blocks=())

    for check, section in standin_checks.SECTIONS.items():
        monkeypatch.setitem(standin_checks.SECTIONS, check, bare(section))


def one(folder: Path) -> AuditedModel:
    return replace(load(folder), training=())


def several(runs: list[Path], number: int) -> list[AuditedModel]:
    return [replace(one(runs[1]), name=f"net {place}") for place in range(number)]


def card(html: str) -> str:
    """The scorecard's part of a page, up to the table of all numbers."""
    section = html.partition('<section id="scorecard">')[2].partition("</section>")[0]
    return section.partition('<details class="all">')[0]


def answered(sections: Mapping[str, Section], models: list[AuditedModel]) -> dict[str, Question]:
    return {question.text: question for question in scorecard.questions(sections, models)}


ASKED = ("accuracy", "robustness", "calibration", "information")


@pytest.mark.parametrize("number", [1, COLUMNS, MANY])
def test_every_question_is_there_once_the_answered_ones_first(runs: list[Path], number: int) -> None:
    html = card(page.render(several(runs, number)))
    words = Reader(html).words
    assert [words.count(question.text) for question in QUESTIONS.values()] == [1] * 9
    others = [check for check in QUESTIONS if check not in ASKED]
    places = [words.index(QUESTIONS[check].text) for check in (*ASKED, *others)]
    assert places == sorted(places)
    assert html.count("<tr") == 1 + (len(ASKED) if number <= COLUMNS else number)


@pytest.mark.parametrize("number", [1, MANY])
def test_what_was_asked_links_to_its_section_and_nothing_else_does(runs: list[Path], number: int) -> None:
    html = page.render(several(runs, number))
    links = re.findall(r'href="#(check-[^"]+)"', card(html))
    assert links == ["check-accuracy", "check-robustness", "check-calibration", "check-information"]
    assert set(links) <= set(Reader(html).values("id"))


@pytest.mark.parametrize("number", [1, COLUMNS, MANY])
def test_what_was_not_asked_says_how_to_ask_and_is_not_passed(runs: list[Path], number: int) -> None:
    html = card(page.render(several(runs, number)))
    for check in ("diagnosis", "corruptions", "ood_detection", "memorisation"):
        assert f"{QUESTIONS[check].text} Add <code>--checks {check}</code>." in html.partition("Not run: ")[2]
    assert "Add <code>--checks shift:cifar10_1</code>." in html
    assert Counter(re.findall(r'class="badge (\w+)"', html)) == {"pass": 2 * number, "measured": number, "fail": number}


def test_the_number_is_the_checks_own_with_its_interval_and_n(runs: list[Path]) -> None:
    metric = standins.fraction(0.125)
    sections = {"accuracy": Section("A", "", columns={"other": {"a": standins.fraction(0.5)}}, headlines={
        "a": Headline(metric, "what it is", "holds", "of the few"),
    })}  # fmt: skip
    model = replace(one(runs[0]), name="a")
    question = answered(sections, [model])[QUESTIONS["accuracy"].text]
    (answer,) = question.answers
    assert question.small == ("what it is", "n\u00a0=\u00a0360")
    assert answer.cell is not None
    assert (answer.cell.text, answer.cell.interval) == ("12.5%", "9.1–15.9")
    assert (answer.word, answer.notes) == ("holds", ("of the few",))


def test_a_check_of_somebody_else_appears_with_its_first_column(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def section(found: Found) -> Section:
        columns = {"width": {name: Metric(value=2.5, unit="mm", n=7) for name in found}, "height": {}}
        return Section("My own", "How wide is it?", (), columns)

    monkeypatch.setitem(standin_checks.SECTIONS, "my_own", section)
    result = CheckResult(check="my_own", status=Status.WARN, reason="Wide.")
    plain = CheckResult(check="nobodys", status=Status.PASS, reason="Fine.")
    html = card(page.render([replace(one(runs[0]), results={"my_own": result, "nobodys": plain})]))
    words = Reader(html).words
    assert "How wide is it? width, mm, n = 7 warning 2.50" in words
    assert 'href="#check-my_own"' in html
    assert re.search(r"Nobodys pass Beside each number", words), "no number, but a line"


def test_nothing_is_answered_where_nothing_was_asked(runs: list[Path]) -> None:
    """Skipped, broken off and not run: whatever numbers there are, none stands on the scorecard."""
    whole = one(runs[1])
    numbers = Metrics([standins.fraction(0.75, "accuracy")])
    for status in (Status.SKIPPED, Status.ERROR, None):
        result = CheckResult(check="accuracy", status=status or Status.PASS, reason="Why.", metrics=numbers)
        others = {} if status is None else {"accuracy": result}
        models = [whole, replace(whole, name="b", results={**others, "robustness": whole.results["robustness"]})]
        sections = page.sections(models)
        question = answered(sections, models)[QUESTIONS["accuracy"].text]
        assert [answer.cell is None for answer in question.answers] == [False, True]
        assert question.answers[1].outcome.status is status
        if status is not None:
            alone = answered(page.sections(models[1:]), models[1:])[QUESTIONS["accuracy"].text]
            assert alone.small == ()
    assert "75.0%" not in card(page.render(models))


def test_numbers_of_two_kinds_are_told_apart_in_their_cells() -> None:
    models = [AuditedModel(name, None, {}, None, {"ood_detection": PASSED}) for name in "ab"]  # type: ignore[arg-type]
    headlines = {name: Headline(standins.fraction(0.9), f"AUROC of {name}") for name in "ab"}
    question = answered({"ood_detection": Section("D", "", headlines=headlines)}, models)[
        QUESTIONS["ood_detection"].text
    ]
    assert question.small == ("n\u00a0=\u00a0360",)
    assert [answer.notes for answer in question.answers] == [("AUROC of a",), ("AUROC of b",)]


PASSED = CheckResult(check="ood_detection", status=Status.PASS, reason="Fine.")


def evil(found: Found) -> Section:
    metric = Metric(value=0.5, unit=EVIL, n=1, note=EVIL)
    return Section(EVIL, EVIL, headlines={name: Headline(metric, EVIL, EVIL, EVIL) for name in found})


@pytest.mark.parametrize("number", [1, MANY])
def test_hostile_texts_are_escaped(runs: list[Path], monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setitem(standin_checks.SECTIONS, EVIL, evil)
    monkeypatch.setitem(standin_checks.SECTIONS, "accuracy", evil)
    results = {name: PASSED.model_copy(update={"check": name, "reason": EVIL}) for name in (EVIL, "accuracy")}
    html = page.render([replace(each, name=EVIL + each.name, results=results) for each in several(runs, number)])
    read = Reader(html)
    only_script_is_pinned(html, read)
    assert read.faults == []
    assert card(html).count("&lt;script&gt;") >= 7 * number
    ids = set(read.values("id"))
    assert {link[1:] for link in read.values("href") if link.startswith("#")} <= ids


def test_all_numbers_are_behind_the_scorecard(runs: list[Path]) -> None:
    html = page.render([one(folder) for folder in runs])
    folded = html.partition('<details class="all">')[2].partition("</details>")[0]
    assert "All numbers, side by side" in folded
    assert "stochastic mode" in Reader(folded).words
    assert 'class="badge' not in folded, "badges stand on the scorecard alone"
