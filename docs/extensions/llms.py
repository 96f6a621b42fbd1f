"""A hook of mkdocs that writes ``llms.txt`` into the site: a list of its pages for language models (llmstxt.org)."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_nav: list[Any] = []


def on_nav(nav: Any, **_: Any) -> None:
    """Called by mkdocs with the navigation, whose pages are read later."""
    _nav[:] = nav.items


def on_post_build(config: Any, **_: Any) -> None:
    """Called by mkdocs when the site is written."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}"]
    for group in _nav:
        lines += ["", f"## {group.title}", "", *map(_line, _pages(group))]
    Path(config.site_dir, "llms.txt").write_text("\n".join(lines) + "\n", "utf-8")


def _pages(item: Any) -> Iterator[Any]:
    if item.is_page:
        yield item
    for child in item.children or ():
        yield from _pages(child)


def _line(page: Any) -> str:
    summary = _first_sentence(page.content or "")
    return f"- [{page.title}]({page.url})" + (f": {summary}" if summary else "")


def _first_sentence(content: str) -> str:
    """The first sentence of the first paragraph that is text rather than a picture or the base of a class."""
    for paragraph in re.findall(r"<p>(.*?)</p>", content, re.DOTALL):
        text = " ".join(html.unescape(re.sub(r"<[^>]+>", "", paragraph)).split())
        sentence = re.sub(":$", ".", re.split(r"(?<=[.:!?])\s", text)[0])
        if len(sentence.split()) > 2 and not sentence.startswith("Bases:"):
            return sentence
    return ""
