"""What the documentation shows works: Python blocks run, commands and their options exist, recipes load."""

import re
from dataclasses import replace

import pytest
import typer
import yaml

from isthmus.checks import diagnosis
from isthmus.cli import app
from isthmus.core.recipe import load_recipe
from isthmus.training.run import Run
from tests.docs.doc_pages import DOCS, FENCE, PAGES, ROOT, blocks, console_lines, refreshed

TEXTS = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
COMMANDS = [
    pytest.param(words, id=f"{place} {' '.join(words[:2])}") for page in TEXTS for place, words in console_lines(page)
]
GROUP = typer.main.get_command(app.app)
VERBS = GROUP.commands


def runnable(page):
    return [block for block in blocks(page, "python") if not re.search("sketch|^examples/", block.title)]


SLOW = {
    *("adversarial-training.md", "attacks.md", "checks.md", "coming-from.md"),
    *("tutorials/label-hypotheses.md", "tutorials/representations.md"),
}
"""Pages whose blocks train or audit for seconds; ``index.md``, ``quickstart.md`` and quick pages stay."""


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if name in SLOW else [], id=name)
        for page in PAGES
        if runnable(page)
        for name in [str(page.relative_to(DOCS))]
    ],
)
def test_python_blocks_run_in_order(page, tmp_path, monkeypatch, capsys):
    """All blocks of a page share one namespace and an empty folder; a title with "sketch" marks what cannot run.

    A verdict may spend 300 passes per image, so it is undecided where a reader's is not.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(diagnosis, "QUICK", replace(diagnosis.QUICK, passes=300))
    namespace = {"__name__": "docs"}
    for block in runnable(page):
        code = "\n" * (block.line - 1) + block.text  # tracebacks then name the page's own lines
        exec(compile(code, str(page), "exec"), namespace)
    assert capsys.readouterr().out, "every page with code shows something"
    runs = {path.name: Run(path).recipe for path in tmp_path.glob("runs/*") if (path / "run.json").exists()}
    for place, words in console_lines(page):
        if words[:2] == ["isthmus", "train"] and (ROOT / words[2]).exists():
            recipe = load_recipe(ROOT / words[2], [word for word in words[3:] if not word.startswith("--")])
            assert runs.setdefault(recipe.name, recipe) == recipe, f"{place}: runs/{recipe.name} holds another recipe"


@pytest.mark.parametrize("words", COMMANDS)
def test_commands_exist(words):
    """Verbs, options and their values parse; make targets and scripts are there; nothing is run."""
    program, *arguments = words
    if program == "isthmus":
        verb, *rest = arguments
        assert verb in VERBS, f"verbs are {', '.join(VERBS)}"
        VERBS[verb].make_context(verb, [word for word in rest if word != "--debug"])
    elif program == "torchrun":
        assert words[words.index("-m") + 1] == "isthmus"
        verb, *rest = words[words.index("-m") + 2 :]
        VERBS[verb].make_context(verb, rest)
    elif program in ("fabric", "srun"):  # their own options, and then our command
        at = next(place for place, word in enumerate(words) if re.search(r"\bisthmus\b", word))
        verb, *rest = words[at + 1 :]
        VERBS[verb].make_context(verb, rest)
    elif program == "make":
        known = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert {word for word in arguments if "=" not in word} <= set(known)
    elif program == "python":
        assert (ROOT / arguments[0]).exists()
    else:
        assert program in {"pip", ".venv/bin/pre-commit"}


@pytest.mark.parametrize(
    "page", [page for page in TEXTS if page.exists()], ids=lambda page: str(page.relative_to(ROOT))
)
def test_options_named_in_the_text_exist(page):
    """`--flag` and `isthmus verb` in running text, too."""
    spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", page.read_text("utf-8")))
    options = {option for verb in (GROUP, *VERBS.values()) for parameter in verb.params for option in parameter.opts}
    options |= {option for verb in VERBS.values() for parameter in verb.params for option in parameter.secondary_opts}
    named = {word for span in spans for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)}
    foreign = {"--repo-type", "--local-dir", "--ntasks-per-node"}  # of hf and srun
    assert named <= options | {"--help", "--debug"} | foreign
    assert {span.split()[1] for span in spans if span.startswith("isthmus ")} <= {*VERBS, "--help", *options}


RECIPES = [
    pytest.param(block, id=block.name)
    for page in PAGES
    for block in blocks(page, "yaml")
    if not block.title.startswith("examples/ci/")  # a workflow: see test_action.py
]


@pytest.mark.parametrize("block", RECIPES)
def test_recipes_load(block):
    """A block titled "recipe" or by its file loads; "own recipe" names components that only its tutorial installs."""
    given = yaml.safe_load(block.text)
    if block.title == "recipe" or block.title.startswith("examples/recipes/"):
        assert load_recipe({"name": "shown", **given})
    else:
        assert block.title == "own recipe", "titles are recipe or own recipe"


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_command_above_a_recipe_runs_that_recipe(path):
    first = path.read_text("utf-8").splitlines()[0]
    words = first.removeprefix("# isthmus train ").split()
    context = VERBS["train"].make_context("train", words)
    assert context.params["recipe"].resolve() == path
    assert load_recipe(path, context.params["overrides"] or [])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_files_of_examples_are_shown_as_they_are(page):
    content = page.read_text("utf-8")
    assert refreshed(content) == content, "refresh it with: python -m tests.docs.doc_pages"
