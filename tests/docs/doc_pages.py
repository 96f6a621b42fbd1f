"""What stands in the documentation: its fenced blocks, with the page and line they start at."""

import ast
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FENCE = re.compile(r"^```[ ]*(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block; ``line`` is that of its first line of text."""

    page: Path
    line: int
    language: str
    title: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, language: str) -> list[Block]:
    """The fenced blocks of a language on a page, in order."""
    content = page.read_text("utf-8")
    found = []
    for match in FENCE.finditer(content):
        words = match["info"].split(maxsplit=1)
        title = re.search(r'title="([^"]*)"', match["info"])
        if words and words[0] == language:
            line = content[: match.start("text")].count("\n") + 1
            found.append(Block(page, line, language, title[1] if title else "", match["text"]))
    return found


def console_lines(page: Path) -> list[tuple[str, list[str]]]:
    """Commands after ``$`` in console blocks: where each stands, and its words without the comment."""
    return [
        (f"{page.relative_to(ROOT)}:{block.line + offset}", shlex.split(line[2:], comments=True))
        for block in blocks(page, "console")
        for offset, line in enumerate(block.text.splitlines())
        if line.startswith("$ ")
    ]


SHOWN = re.compile(r'^(```\w+ title="(examples/[\w/.-]+)(?:: (\w+))?"\n)(.*?)^```$', re.MULTILINE | re.DOTALL)


def shown(path: str, name: str | None) -> str:
    """A file of ``examples/`` as a page shows it: whole, or one of its functions or classes."""
    text = (ROOT / path).read_text("utf-8")
    if name is None:
        return text
    (node,) = (node for node in ast.parse(text).body if getattr(node, "name", None) == name)
    start = min(each.lineno for each in (node, *node.decorator_list))
    return "\n".join(text.splitlines()[start - 1 : node.end_lineno]) + "\n"


def refreshed(page: str) -> str:
    """A page with its examples as they are now: blocks titled ``examples/FILE`` or ``examples/FILE: NAME``."""
    return SHOWN.sub(lambda block: f"{block[1]}{shown(block[2], block[3])}```", page)


if __name__ == "__main__":  # python -m tests.docs.doc_pages
    for each in PAGES:
        each.write_text(refreshed(each.read_text("utf-8")), "utf-8")
