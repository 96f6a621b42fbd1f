"""README is short, its links lead somewhere, its Python prints what it shows, and its ratios are those measured."""

import json
import re

import pytest

from tests.docs.doc_pages import DOCS, PAGES, ROOT, blocks

README = ROOT / "README.md"
ON_THE_HOST = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "results").rglob("README.md"))]
"""Pages that mkdocs does not build, so that it does not check their links."""


def test_it_has_at_most_900_words():
    assert len(README.read_text("utf-8").split()) <= 900


@pytest.mark.parametrize("page", ON_THE_HOST, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    text = page.read_text("utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    for target in targets:
        path, _, anchor = target.partition("#")
        if re.match(r"https?:", path):
            continue
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file.read_text("utf-8")), target


def anchors(text):
    """Anchors of a Markdown page: its headings as GitHub and mkdocs write them, and explicit ones."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain} | set(re.findall(r'<a id="([^"]+)"', text))


@pytest.mark.slow
def test_its_python_prints_what_it_shows(tmp_path, monkeypatch, capsys):
    (code,), (shown,) = blocks(README, "python"), blocks(README, "text")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    namespace = {"__name__": "readme"}
    exec(compile(code.text, str(README), "exec"), namespace)
    printed = capsys.readouterr().out
    assert printed.split()[:2] == shown.text.split()[:2], "the verdict"
    # another processor may round differently, which changes few examples
    assert percentages(printed) == pytest.approx(percentages(shown.text), abs=3)


def percentages(text):
    return [float(number) for number in re.findall(r"([\d.]+)%", text)]


def test_the_demo_is_shown_in_one_place():
    marked = [page for page in [README, *PAGES] if "<!-- the output of `make demo` -->" in page.read_text("utf-8")]
    assert marked == [DOCS / "quickstart.md"]


@pytest.mark.parametrize(
    ("file", "suite", "networks", "date", "digits"),
    [
        ("attacks.json", "standard", ["trained-53", "trained-74", "mnist-03"], "2026-11-20", 2),
        ("attacks-fast.json", "fast", ["undefended", "trained-74"], "2026-12-01", 0),
    ],
)
def test_its_speeds_are_those_of_the_benchmark(file, suite, networks, date, digits):
    """Torchattacks' time over ours, where ours leaves at most 0.1 points more."""
    models = json.loads((ROOT / "results" / "benchmarks" / file).read_text("utf-8"))["models"]
    measured = [models[network] for network in networks]
    assert {(found["environment"]["date"], found["environment"]["threads"]) for found in measured} == {(date, 1)}
    assert all(found[suite]["accuracy"] <= found["peer"]["accuracy"] + 0.001 + 1e-9 for found in measured)
    ratios = sorted(found["peer"]["seconds"] / found[suite]["seconds"] for found in measured)
    text = " ".join(README.read_text("utf-8").split())
    assert f"`{suite}` {ratios[0]:.{digits}f} to {ratios[-1]:.{digits}f}" in text
    assert f"({date})" in text
