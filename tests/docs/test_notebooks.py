"""Notebooks run from top to bottom, and their stored outputs are those of this version."""

import ast
import importlib.util
import json
import os
import re
from pathlib import Path

import pytest

from tests.docs.doc_pages import DOCS

STRANGER = DOCS / "notebooks" / "audit-a-strangers-model.ipynb"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[tuple[str, str]]:
    """Source and stored text of each code cell."""
    cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    return [("".join(cell["source"]), "".join(map(stored_text, cell["outputs"]))) for cell in cells]


def stored_text(output: dict) -> str:
    return "".join(output.get("text", output.get("data", {}).get("text/plain", "")))


def executed(source: str, namespace: dict) -> str:
    """Run a cell; the ``repr`` of its last expression, as a notebook shows it."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";") else None
    exec(compile(tree, "<cell>", "exec"), namespace)
    if last is None:
        return ""
    value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace)
    return "" if value is None else repr(value)


def percentages(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"([\d.]+)%", text)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_has_its_outputs(path):
    assert path.stat().st_size < 300_000
    cells = json.loads(path.read_text("utf-8"))["cells"]
    counts = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1)), "run from top to bottom in a fresh kernel"
    assert not [output for cell in cells for output in cell.get("outputs", []) if output["output_type"] == "error"]
    assert "/work/" not in path.read_text("utf-8")
    assert str(Path.home()) not in path.read_text("utf-8")


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_strangers_model_is_audited_as_the_notebook_shows(whole, tmp_path, monkeypatch, capsys):
    """The numbers are those of all images; a part of them shows that the cells run."""
    if importlib.util.find_spec("digit_recognizer") is None:
        pytest.skip("needs pip install --no-deps digit-recognizer-py==0.1.0")
    if not Path(os.environ.get("ISTHMUS_DATA") or "none", "ylecun", "mnist").is_dir():
        pytest.skip("needs MNIST below ISTHMUS_DATA")
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "notebook"}
    drawn = 0
    for source, stored in code_cells(STRANGER):
        if not whole:
            assert ("[:100]" in source) == source.startswith("images, labels =")
            source = source.replace("[:2000]", "[:500]").replace("[:100]", "[:20]").replace("passes=600", "passes=100")
        shown = executed(source, namespace) + capsys.readouterr().out
        if ".plot(" in source:
            drawn += 1
            assert namespace["figure"] is pyplot.gcf()
        elif shown and whole:
            # another processor may round differently, which changes few examples
            assert percentages(shown) == pytest.approx(percentages(stored), abs=3), source
    pyplot.close("all")
    assert drawn == 3
    assert namespace["result"].clean_accuracy > 0.97
    assert f"Verdict on the reported {namespace['audit'].verdict.reported:.1%}" in namespace["audit"].citation
    assert "digit-recognizer-py 0.1.0" in (tmp_path / "stranger.html").read_text("utf-8")


def test_the_documentation_shows_the_notebook():
    spec = importlib.util.spec_from_file_location("notebooks", DOCS / "extensions" / "notebooks.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    page = hook.on_page_markdown((DOCS / "tutorials" / "strangers-model.md").read_text("utf-8"))
    assert page.startswith("# Audit a stranger's model")
    for source, _ in code_cells(STRANGER):
        assert source in page
    assert page.count('src="data:image/png;base64,') == 3
