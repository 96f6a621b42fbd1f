"""A hook of mkdocs that shows notebooks: ``<!-- notebook: PATH -->`` on a page becomes the cells of that notebook.

The path is relative to ``docs``. Text, code and stored outputs are shown; nothing is run.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]
_PLACE = re.compile(r"<!-- notebook: (\S+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    return _PLACE.sub(lambda match: rendered(DOCS / match[1]), markdown)


def rendered(notebook: Path) -> str:
    """The cells of a notebook as Markdown."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    return "\n\n".join(_cell(cell) for cell in cells)


def _cell(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    return "\n\n".join([f"```python\n{source}\n```", *map(_output, cell["outputs"])])


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {"text/plain": output.get("text", "")})
    if "image/png" in data:
        return f'<img alt="plot" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    if "text/html" in data:
        return re.sub(r'<style.*?</style>|\n\s*| class="dataframe"', "", "".join(data["text/html"]), flags=re.DOTALL)
    return f"```text\n{''.join(data['text/plain']).rstrip()}\n```"
