"""Strings of a recipe, a class, a file or an audit on the page, as a real browser reads them: text, nothing else."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.core import results
from isthmus.report import page
from tests.fuzzing.hostile import Draw
from tests.fuzzing.trials import cases, judge, place
from tests.report.headless import CHROMIUM, Browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"),
]

RUN = "window.ran=1;document.title='run'"
HOSTILE = [
    f"<script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"</style><script>{RUN}</script>",
    f"</title><script>{RUN}</script>",
    f"</pre></td></svg><img src=x onerror={RUN}>",
    f"<svg onload={RUN}>",
    f"<svg><script>{RUN}</script></svg>",
    f'"><img src=x onerror={RUN}>',
    f"' onmouseover='{RUN}' x='",
    f'" autofocus onfocus="{RUN}" tabindex="0',
    f'<a href="javascript:{RUN}">click</a>',
    f"javascript:{RUN}",
    f'<iframe srcdoc="<script>parent.{RUN}</script>"></iframe>',
    f'<object data="data:text/html,<script>{RUN}</script>"></object>',
    '<meta http-equiv="refresh" content="0;url=http://isthmus.invalid/">',
    '<base href="http://isthmus.invalid/">',
    "<link rel=stylesheet href=http://isthmus.invalid/x.css>",
    "<style>*{display:none}</style>",
    "<form action=http://isthmus.invalid/><button>go</button></form>",
    f"<!--<script>{RUN}</script>",
    f"<![CDATA[<script>{RUN}</script>]]>",
    f"&lt;script&gt;{RUN}&lt;/script&gt;",
    f"&#60;script&#62;{RUN}&#60;/script&#62;",
    "\u202eevil\u202c \u2066abc\u2069 \u200f",
    "{{ 7 * 7 }} {% raw %} ${7*7} #{7*7}",
    "$\\frac{1}{2}$ $x$ _a_ **b**",
    "url(http://isthmus.invalid/x) expression(alert(1))",
    "a\0b\x01c\x1b[31m",
    "\ud800 half a pair",
    "<" * 300,
    "&" * 100,
    f"<math><mtext></math><img src=x onerror={RUN}>",
    f'<noscript><p title="</noscript><img src=x onerror={RUN}>">',
    f"<details open ontoggle={RUN}>",
    f"<input onfocus={RUN} autofocus>",
    "x\n\n## heading\n- item",
]
LOOKED_FOR = {  # what must not be there, and the number that there is
    "scripts": "document.scripts.length - 1",  # the page's own, which the policy pins
    "handlers": "[...document.querySelectorAll('*')]"
    ".filter(e => [...e.attributes].some(a => a.name.startsWith('on'))).length",
    "foreign elements": "document.querySelectorAll("
    "'iframe, object, embed, form, base, math, input, a[href^=javascript]').length",
    "refreshes": "document.querySelectorAll('meta[http-equiv=refresh]').length",
    "images from elsewhere": "[...document.images].filter(i => !i.src.startsWith('data:')).length",
    "styles": "document.querySelectorAll('style').length - 1",
    "ran": "window.ran || 0",
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def infected(run: Path, there: Path, texts: list[str]) -> list[str]:
    """A copy of a run in which every text of a person's is one of these; returns those that the page shows."""
    shutil.copytree(run, there, ignore=shutil.ignore_patterns("*.safetensors", "page.html"))
    turn = itertools.cycle(texts)
    shown: list[str] = []

    def put(holder: dict[str, Any], key: str, visible: bool = True) -> None:
        holder[key] = next(turn)
        if visible:
            shown.append(holder[key])

    def edit(name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((there / name).read_text())
        content.pop("sha256")
        return content

    about = edit("run.json")
    put(about["recipe"], "name")
    put(about["recipe"]["data"], "path")
    put(about["recipe"]["model"]["backbone"], "name")
    put(about["recipe"]["objective"], "name")
    put(about["starts"][-1], "commit")
    about["data"]["classes"] = texts[:3]
    about["recipe"][texts[0]] = texts[0]
    about[texts[-1]] = texts[-1]
    (there / "run.json").write_text(json.dumps(about))
    record = edit("audit/audit.json")
    for key in ("model", "data", "model_hash", "data_hash"):
        put(record, key)
    put(record["settings"], "threat")
    record["settings"][texts[-1]] = texts[-1]
    (there / "audit/audit.json").write_text(json.dumps(record))
    for check in ("accuracy", "calibration", "information"):
        result = edit(f"audit/{check}.json")
        put(result, "reason")
        result["options"][texts[0]] = texts[0]
        for metric in result["metrics"]:
            put(metric, "note", visible=False)
            put(metric, "unit", visible=False)
            if metric["interval"]:
                put(metric["interval"], "method", visible=False)
        (there / f"audit/{check}.json").write_text(json.dumps(result))
    foreign = {
        "format": results.FORMAT,
        "check": texts[0],
        "status": "pass",
        "reason": texts[0],
        "metrics": [{"name": texts[1 % len(texts)], **_metric(texts)}],
    }
    (there / "audit/foreign.json").write_text(json.dumps(foreign))
    return shown


def _metric(texts: list[str]) -> dict[str, Any]:
    return {"value": 0.5, "unit": texts[0], "n": 3, "note": texts[-1]}


def look(browser: Browser, path: Path, shown: list[str]) -> None:
    """Open a page, provoke it, and look for what came of the texts in it."""
    browser.open(path, width=1280)
    browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    browser.evaluate(
        "document.querySelectorAll('*').forEach(e => ['mouseover', 'focus', 'click', 'toggle']"
        ".forEach(kind => e.tagName == 'A' || e.dispatchEvent(new Event(kind))))"
    )
    found = {name: browser.evaluate(expression) for name, expression in LOOKED_FOR.items()}
    assert found == dict.fromkeys(LOOKED_FOR, 0)
    assert browser.evaluate("document.title").endswith("· isthmus")
    assert browser.requests() == [path.resolve().as_uri()]
    assert not [complaint for complaint in browser.complaints() if "Content Security Policy" in complaint]
    text = _plain(browser.evaluate("document.documentElement.textContent"))
    for each in shown:
        assert _plain(each) in text, f"the page does not show {each!r}"


def _plain(text: str) -> str:
    """Without what neither HTML nor a file can hold, and with spaces as a reader sees them."""
    kept = "".join(" " if c.isspace() else c for c in text if c >= " " or c.isspace())
    return " ".join(kept.replace("\ufffd", "").replace("\ud800", "").replace("?", "").split())


@st.composite
def texts(draw: Draw) -> list[str]:
    wrapped = st.sampled_from(["{}", "a {} b", "<b>{}", "'{}'", '"{}"', "{}{}"])
    one = st.sampled_from(HOSTILE)
    return [draw(wrapped).replace("{}", draw(one)) for _ in range(draw(st.integers(1, 5)))]


@given(chosen=texts())
@cases(1, 50)
def test_a_page_shows_hostile_strings_as_text(run: Path, browser: Browser, chosen: list[str]) -> None:
    with place() as here:
        shown = infected(run, here.folder / "run", chosen)
        out = here.folder / "page.html"
        judge("page in a browser", here, lambda: page.write([here.folder / "run"], out))
        look(browser, out, shown)


def test_all_hostile_strings_on_one_page(run: Path, browser: Browser) -> None:
    with place() as here:
        folders = [here.folder / "run one", here.folder / "<img src=x onerror=window.ran=1>"]
        shown = [text for folder in folders for text in infected(run, folder, HOSTILE)]
        out = here.folder / "page.html"
        assert judge("page in a browser", here, lambda: page.write(folders, out)) == "worked"
        look(browser, out, shown)


def test_this_test_sees_a_page_that_runs_something(browser: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(f"<!doctype html><title>x · isthmus</title><style></style><p>{HOSTILE[0]}", "utf-8")
    with pytest.raises(AssertionError, match="'ran': 1"):
        look(browser, bad, [])
