"""Interactive examples of the reference, blocks of ``pycon``: run, compared with the output they show, and refreshed.

Every page starts from the session of ``reference/index.md``. Numbers may differ by a tenth, since another processor
rounds differently. ``python -m tests.docs.sessions [PAGE...]`` runs pages of the reference and writes the outputs.
"""

from __future__ import annotations

import doctest
import os
import re
import sys
import tempfile
from pathlib import Path

from tests.docs.doc_pages import DOCS, Block, blocks

REFERENCE = DOCS / "reference"
FIRST = REFERENCE / "index.md"
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[-+]?\d+)?")


class Tolerant(doctest.OutputChecker):
    """Outputs are equal if their text is, and their numbers nearly are."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        texts = [NUMBER.sub("#", text).split() for text in (want, got)]
        pairs = zip(*([float(number) for number in NUMBER.findall(text)] for text in (want, got)), strict=False)
        near = all(abs(one - other) <= 0.02 + 0.1 * max(one, other) for one, other in pairs)
        return (texts[0] == texts[1] and near) or super().check_output(want, got, optionflags)


class Session(doctest.DocTestRunner):
    """Runs examples in one namespace; ``outputs`` has what each printed, ``failures_shown`` how it differs."""

    def __init__(self) -> None:
        super().__init__(Tolerant(), verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        self.outputs: list[str] = []
        self.differences: list[str] = []

    def report_success(self, out, test, example, got) -> None:
        self.outputs.append(got if example.exc_msg is None else example.want)

    def report_failure(self, out, test, example, got) -> None:
        self.outputs.append(got)
        self.differences.append(f"{example.source}expected:\n{example.want}got:\n{got}")

    def report_unexpected_exception(self, out, test, example, exc_info) -> None:
        raise RuntimeError(f"{test.name}: {example.source}") from exc_info[1]


def sessions(page: Path) -> list[Block]:
    return blocks(page, "pycon")


def run(page: Path) -> Session:
    """Run the examples of a page after those of the first one; the outputs are those of the page alone."""
    parser = doctest.DocTestParser()
    before = [] if page == FIRST else [e for block in sessions(FIRST) for e in parser.get_examples(block.text)]
    examples = [e for block in sessions(page) for e in parser.get_examples(block.text)]
    session = Session()
    name = str(page.relative_to(DOCS))
    test = doctest.DocTest([*before, *examples], {"__name__": "docs"}, name, name, 0, "")
    session.run(test, out=lambda _: None)
    session.outputs = session.outputs[len(before) :]
    return session


def with_outputs(page: str, outputs: list[str]) -> str:
    """The text of a page with these outputs."""
    remaining = iter(outputs)

    def refreshed(block: re.Match[str]) -> str:
        lines, parser = [], doctest.DocTestParser()
        for piece in parser.parse(block[2]):
            if isinstance(piece, str):
                lines += piece.splitlines()
                continue
            source = piece.source.splitlines()
            lines += [f"{'...' if number else '>>>'} {line}".rstrip() for number, line in enumerate(source)]
            lines += [line or "<BLANKLINE>" for line in next(remaining).splitlines()]
        return block[1] + "\n".join(lines) + "\n```"

    return re.sub(r"^(```pycon.*?\n)(.*?)^```$", refreshed, page, flags=re.MULTILINE | re.DOTALL)


if __name__ == "__main__":
    chosen = [REFERENCE / f"{name}.md" for name in sys.argv[1:]] or sorted(REFERENCE.glob("*.md"))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for each in chosen:
            if sessions(each):
                each.write_text(with_outputs(each.read_text("utf-8"), run(each).outputs), "utf-8")
