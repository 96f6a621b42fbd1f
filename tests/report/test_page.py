"""The page as a file: what it says, that it is well-formed, self-contained, escaped, and always the same."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from isthmus.core import results
from isthmus.core.display import Figure, Mark, Section, Series, Table
from isthmus.core.errors import FileError
from isthmus.core.format import STATUSES
from isthmus.core.types import CheckResult, Interval, Metric, Metrics, Status
from isthmus.report import page
from isthmus.report.loading import AuditedModel, load, load_all
from tests.report import report_standins as standins
from tests.report import standin_checks

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Reader(HTMLParser):
    """Reads a page and notes what is wrong with it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.headings: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    def values(self, *names: str) -> list[str]:
        return [value for _, name, value in self.attributes if name in names]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).replace("\u00a0", " ").split())


@pytest.fixture(scope="module")
def read(html: str) -> Reader:
    return Reader(html)


def test_it_is_well_formed(read: Reader) -> None:
    assert read.faults == []
    assert read.open == []


def test_its_sections_come_in_order(read: Reader) -> None:
    checks = ["Accuracy", "Robustness", "Calibration", "Information"]
    assert read.headings == ["Scorecard", *checks, "Training", "Provenance"]


def test_ids_are_unique_and_every_reference_resolves(html: str, read: Reader) -> None:
    ids = Counter(read.values("id"))
    assert max(ids.values()) == 1
    references = [value[1:] for value in read.values("href", "xlink:href") if value.startswith("#")]
    references += re.findall(r"url\(#([^)]+)\)", html)
    assert len(references) > 100
    assert set(references) <= set(ids)


def only_script_is_pinned(html: str, read: Reader) -> None:
    """The page's one script is inline, and the content security policy allows no other."""
    assert read.tags["script"] == 1
    (policy,) = (value for value in read.values("content") if value.startswith("default-src"))
    source = html.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy


def test_nothing_is_fetched_from_anywhere(html: str, read: Reader) -> None:
    assert not {"iframe", "object", "embed", "base", "form"} & set(read.tags)
    only_script_is_pinned(html, read)
    addresses = read.values("href", "src", "srcset", "action", "poster", "data", "xlink:href")
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert not re.search(r"url\((?!#)|@import|@font-face", html)
    values = [value for _, name, value in read.attributes if not name.startswith("xmlns")]
    outside = [value for value in values if "//" in value and not value.startswith("data:")]  # base64 has slashes
    assert outside == []
    assert any(value.startswith("default-src 'none'") for value in read.values("content"))


def test_colours_are_left_to_the_style_sheet(html: str) -> None:
    body = html.partition("</style>")[2]
    assert not re.search(r"#fe0[12]", body), "a sentinel colour was left"
    assert not re.search(r"(?:fill|stroke): ?#", body), "a drawing has a colour of its own"
    assert "var(--series-4)" in body


def test_every_number_shows_its_interval_and_n(read: Reader) -> None:
    metric = standins.fraction(standins.MODELS["vib-rho0"][0])
    assert metric.interval is not None
    assert f"93.1% {100 * metric.interval.low:.1f}–{100 * metric.interval.high:.1f}" in read.words
    assert "clean accuracy n = 360" in read.words
    assert "95% Wilson" in read.words
    assert "residual ReX nats, n = 360" in read.words


def test_every_figure_has_its_reading_and_a_label(read: Reader) -> None:
    assert "At ε = 0.1 the bottleneck models keep 40 to 60% of their images" in read.words
    assert read.tags["figcaption"] == read.tags["figure"]
    labels = [value for tag, name, value in read.attributes if tag == "svg" and name == "aria-label"]
    assert any(label.startswith("Reliability: ceb-rho4. Points above") for label in labels)


def test_the_summary_is_in_words(read: Reader) -> None:
    assert "Five classifiers on digits, audited" in read.words
    assert "Each was audited on the same 360 images with seed 0." in read.words
    assert "Of 20 checks, 4 were measured, 8 passed, 4 gave a warning, 3 failed and 1 was skipped." in read.words


def test_what_was_run_is_all_there(read: Reader) -> None:
    for fact in (
        "4f0c2f0e8b1d5a6c7e9f00112233445566778899",
        "torch 2.13.0",
        "2026-05-09T10:00:00",
        "ab" * 32,
    ):
        assert fact in read.words
    assert "ceb (rho 4.0) · mlp · seed 0 · n = 360 · model" in read.words
    assert "lr: 0.001" in read.words
    assert "isthmus report deterministic vib-rho4 vib-rho0 ceb-rho4 ceb-rho0" in read.words


def test_the_same_runs_give_the_same_bytes_without_torch(html: str, runs: list[Path], tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from tests.report import standin_checks\n"
        "from isthmus.report import page, sections\n"
        "sections.find = standin_checks.find\n"
        "page.write(sys.argv[2:], sys.argv[1])\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot was imported'\n"
    )
    environment = os.environ | {
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
    }
    arguments = [str(tmp_path / "page.html"), *map(str, runs)]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, env=environment)
    assert (tmp_path / "page.html").read_text("utf-8") == html


EVIL = "<script>alert('1')</script>\"&$x$\x01\ud800"


def evil_section(found: object) -> Section:
    figure = Figure(EVIL, EVIL, EVIL, EVIL, (Series(EVIL, (0, 1), (0, 1)),), (Mark(EVIL, y=0.5),))
    return Section(EVIL, EVIL, (figure,), {EVIL: {EVIL: Metric(value=0.5, unit=EVIL, n=1, note=EVIL)}})


def test_every_text_is_escaped(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(standin_checks.SECTIONS, "accuracy", evil_section)
    model = load(runs[-1])
    record = model.record.model_copy(update={"data": EVIL, "settings": {EVIL: EVIL}})
    reasons = {name: one.model_copy(update={"reason": EVIL}) for name, one in model.results.items()}
    html = page.render([replace(model, name=EVIL, record=record, results=reasons, folder=EVIL)])
    read = Reader(html)
    only_script_is_pinned(html, read)
    assert read.faults == []
    assert html.lower().count("<script") == 1
    assert "\ud800" not in html


def test_each_status_has_its_word_and_its_reason(runs: list[Path]) -> None:
    model = load(runs[0])
    changed = {
        status.value: CheckResult(check=status.value, status=status, reason=f"Because of {status}.")
        for status in Status
    }
    html = page.render([replace(model, results=changed)])
    for status, word in STATUSES.items():
        assert re.search(rf'<span class="badge {status}">\s*<svg.*?</svg>{word}</span>', html, re.DOTALL)
        assert f"Because of {status}." in html


def test_a_check_that_was_not_run_is_said_so(runs: list[Path]) -> None:
    first, second = (load(folder) for folder in runs[:2])
    partial = {name: one for name, one in second.results.items() if name != "calibration"}
    html = page.render([first, replace(second, results=partial)])
    assert "not run" in html
    assert "This audit has no result of this check." in html


def test_one_classifier_alone(runs: list[Path]) -> None:
    read = Reader(page.render([load(runs[4])]))
    assert "All numbers, in one table" in read.words
    assert "ceb-rho0 on digits, audited" in read.words
    assert "clean accuracy, n = 360 pass 95.8%" in read.words


def test_an_audit_in_memory_has_no_folder_to_redraw(runs: list[Path]) -> None:
    whole = load(runs[0])
    model = AuditedModel("mine", None, whole.record.provenance, whole.record, whole.results)
    assert "audit in memory" in page.render([model])


def test_numbers_that_cannot_be_compared_are_said_to_be_so(runs: list[Path]) -> None:
    first, second = (load(folder) for folder in runs[:2])
    other = {"data_hash": "0" * 64, "settings": {"threat": "linf:0.2", "budget": "quick"}}
    changed = replace(second, record=second.record.model_copy(update=other))
    read = Reader(page.render([first, changed]))
    assert "They were not audited on the same images" in read.words
    assert "different settings (threat)" in read.words


def test_what_only_some_can_have_is_no_difference_in_settings(runs: list[Path]) -> None:
    first, second = (load(folder) for folder in runs[:2])
    drawn = second.record.model_copy(update={"settings": {**second.record.settings, "samples": 12}})
    assert "different settings" not in Reader(page.render([first, replace(second, record=drawn)])).words


def test_different_options_of_a_check_are_a_difference(runs: list[Path]) -> None:
    def with_steps(model: AuditedModel, steps: int) -> AuditedModel:
        harder = model.results["robustness"].model_copy(update={"options": {"name": "robustness", "steps": steps}})
        return replace(model, results={**model.results, "robustness": harder})

    first, second = (load(folder) for folder in runs[:2])
    read = Reader(page.render([with_steps(first, 40), with_steps(second, 100)]))
    assert "different settings (robustness.steps)" in read.words
    assert "steps: 100" in read.words


def test_collapsed_training_and_broken_checks_are_said_first(runs: list[Path]) -> None:
    first, second = (load(folder) for folder in runs[:2])
    assert "caution" not in {value for _, name, value in Reader(page.render([first])).attributes if name == "class"}
    broken = CheckResult(check="calibration", status=Status.ERROR, reason="Out of memory.")
    read = Reader(
        page.render(
            [
                replace(first, run={**first.run, "result": {"collapsed": True}}),
                replace(second, results={**second.results, "calibration": broken}),
            ]
        )
    )
    head = read.words.partition("Scorecard")[0]
    assert "deterministic collapsed in training" in head
    assert "Not everything was measured: calibration of vib-rho4 ended with an error." in head


INF, NAN = math.inf, math.nan
ODD = (INF, NAN, -INF, 1.0, 2.0)


def odd_section(found: Mapping[str, CheckResult]) -> Section:
    """Infinities and NaN wherever a number can be."""
    metrics = {
        name: Metric(value=v, unit=unit, n=3, interval=Interval(low=low, high=INF, method="bootstrap"))
        for name, v, unit, low in zip(found, ODD, ("nats", "fraction") * 3, (0.0, NAN, -INF, NAN, 1.0), strict=False)
    }
    values = list(zip(found, ODD, strict=True))
    figures = [
        Figure(
            *("Odd", "r", "x", "y"),
            tuple(Series(n, (0.0, 1.0, 2.0, INF), (1.0, v, 2.0, 3.0), *bounds, style, n) for n, v in values),
            (Mark("far", x=INF, y=1.0), Mark("none", y=NAN), Mark("fine", y=1.0)),
        )
        for style in ("line", "points", "bars")
        for bounds in ((None, None), ((0.0, NAN, -INF, 1.0), (2.0, INF, INF, 4.0)))
    ]
    figures.append(Figure("Empty", "r", "x", "y", tuple(Series(n, (NAN,), (INF,), group=n) for n in found)))
    table = Table("Odd", "r", ("classifier", "metric", "number"), tuple((n, m, INF) for n, m in metrics.items()))
    return Section("Odd", "", (*figures, table), {"odd": metrics})


def test_numbers_that_are_not_finite_are_shown_and_break_nothing(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(standin_checks.SECTIONS, "accuracy", odd_section)
    folder = shutil.copytree(runs[0], tmp_path / "odd")
    result = results.load_result(folder / "audit", "accuracy")
    metrics = Metrics(Metric(name=name, value=v, unit="nats", n=3) for name, v in (("accuracy", NAN), ("gap", INF)))
    results.save_result(folder / "audit", result.model_copy(update={"metrics": metrics}))
    html = page.render(load_all([folder, *runs[1:]]))
    read = Reader(html)
    assert read.faults == []
    assert "∞" in read.words
    assert "not a number" in read.words
    assert not re.search(r"\b(nan|inf)\b", html.partition("</style>")[2].partition("<script>")[0])


def test_a_check_without_a_section_shows_its_metrics_by_coordinates(runs: list[Path], tmp_path: Path) -> None:
    metrics = [standins.fraction(0.125, "gap"), standins.fraction(0.25, "gap", mode="stochastic")]
    found = CheckResult(check="my_own", status=Status.PASS, reason="Fine.", metrics=Metrics(metrics))
    folder = shutil.copytree(runs[0], tmp_path / "own")
    results.save_result(folder / "audit", found)
    read = Reader(page.render([load(folder)]))
    assert "My own" in read.headings
    assert "classifier mode gap" in read.words
    assert "stochastic 25.0%" in read.words
    assert "12.5%" in read.words


def test_a_result_that_cannot_be_drawn_is_one_sentence(runs: list[Path]) -> None:
    model = load(runs[1])
    broken = model.results["robustness"].model_copy(update={"details": {}})
    with pytest.raises(FileError, match=r"check 'robustness' for vib-rho4 cannot be drawn .* run the audit again"):
        page.render([replace(model, results={"robustness": broken})])


def test_a_picture_that_cannot_be_drawn_is_one_sentence(runs: list[Path]) -> None:
    model = load(runs[1])
    arrays = {"adversarial": np.zeros((2, 8, 8), np.float32)}
    broken = model.results["robustness"].model_copy(update={"arrays": arrays})
    with pytest.raises(FileError, match="uint8"):
        page.render([replace(model, results={"robustness": broken})])


def test_write_returns_the_page_and_ignores_it_among_the_runs(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "index.html"
    folder = shutil.copytree(runs[0], tmp_path / "run")
    assert page.write([folder], out) == out
    before = out.read_bytes()
    assert page.write(sorted(tmp_path.iterdir()), out).read_bytes() == before


def test_the_terminal_and_the_page_share_their_sections(runs: list[Path]) -> None:
    shown = page.sections(load_all(runs))
    assert list(shown) == ["accuracy", "robustness", "calibration", "information"]
    assert "clean accuracy" in shown["accuracy"].columns


def test_results_on_disk_are_all_the_page_needs(runs: list[Path]) -> None:
    assert results.saved_checks(runs[0] / "audit") == ["accuracy", "calibration", "information", "robustness"]
