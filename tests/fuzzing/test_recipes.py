"""Recipes: YAML files, mappings and overrides that are damaged, hostile, or both."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from isthmus.core.recipe import load_recipe
from tests.fuzzing.hostile import LARGE, SCALARS, Draw, damaged, spoiled, values
from tests.fuzzing.trials import Place, cases, judge, place

RECIPE = {
    "name": "fuzzed",
    "seed": 3,
    "data": {"name": "digits", "train_limit": 100, "classes": ["0", "1"]},
    "model": {"backbone": {"name": "mlp", "hidden": [8]}, "dim": 4, "covariance": "full", "normalize": "symmetric"},
    "objective": {"name": "ceb", "rho": 1.0},
    "training": {
        "epochs": 1,
        "batch_size": 50,
        "optimizer": {"name": "adam", "lr": 0.001, "betas": [0.9, 0.999]},
        "learning_rate": {"milestones": [1, 2], "factor": 0.1},
        "rho_schedule": {"start": 100.0, "epochs": 1},
        "augment": {"name": "none", "cutout": 2},
        "snapshots": [1, 2],
        "callbacks": ["gradient_snr"],
    },
}
TEXT = yaml.safe_dump(RECIPE, sort_keys=False)


def laughs(levels: int, width: int = 9) -> str:
    """A billion laughs: each anchor holds the one before several times."""
    lines = ["a0: &a0 [lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


TAGS = [
    "!!python/object/apply:builtins.open ['{marker}', 'w']",
    "!!python/object/apply:os.system ['touch {marker}']",
    "!!python/object/new:builtins.open ['{marker}', 'w']",
    "!!python/object/apply:subprocess.Popen [['touch', '{marker}']]",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/tuple [1, 2]",
    "!!binary gIAB",
    "!!binary '{marker}é'",
    "!!set {{a, b}}",
    "!!omap [a: 1]",
    "!!timestamp 2020-99-99",
    "!!int abc",
    "!!int ''",
    "!!float x",
    "!!bool perhaps",
    "!!null x",
    "!isthmus {{a: 1}}",
    "2020-99-99",
    "2020-02-30 25:61:61",
    "0b_",
    "0x_",
    "1:99:99",
    "-.inf",
    ".nan",
    "<<: *b",
    "{{<<: [1]}}",
    "{{? [a]: b}}",
    "&x [*x]",
    "&x {{x: *x}}",
    "'\\ud800'",
    '"\\ud800 \\x00 \\x1b[31m"',
    "|2\n  a\n b",
    "%TAG ! tag:x\n---",
    "--- a\n--- b",
    "[" * 3000,
    "{{a: " * 3000,
    "- " * 3000,
    "0x" + "f" * 6000,
    "9" * 6000,
]
DOCUMENTS = [
    laughs(12) + "name: lol\n" + "model: *a11\n",
    laughs(12) + TEXT.replace("seed: 3", "seed: *a11"),
    laughs(12) + TEXT.replace("name: fuzzed", "name: *a11"),
    laughs(10) + TEXT.replace("  train_limit: 100", "  train_limit: *a9"),
    TEXT.replace("name: fuzzed", "name: &n {x: *n}"),
    "&top\nname: a\nmodel: *top\nobjective: *top\ndata: *top\n",
    TEXT + TEXT,
    TEXT + "...\n" + TEXT,
    "# " + "x" * 300_000 + "\n" + TEXT,
    TEXT.replace("digits", "folder:" + "../" * 2000),
    TEXT.replace("digits", 'folder:"\\0"'),
]


@st.composite
def documents(draw: Draw, marker: str) -> bytes:
    """The text of a recipe in a file."""
    kind = draw(st.sampled_from(["tag", "tag", "tree", "tree", "tree", "bytes", "whole", "line"]))
    if kind == "whole":
        return draw(st.sampled_from(DOCUMENTS)).encode()
    if kind == "tree":
        tree = draw(damaged(RECIPE))
        try:
            text = yaml.dump(tree, allow_unicode=draw(st.booleans())) if draw(st.booleans()) else json.dumps(tree)
        except (ValueError, RecursionError):  # what cannot be written so
            text = TEXT
        return text.encode("utf-8", "surrogatepass")
    if kind == "bytes":
        return draw(spoiled(TEXT.encode()))
    lines = TEXT.splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    tag = draw(st.sampled_from(TAGS)).format(marker=marker)
    if kind == "tag":
        lines[at] = f"{lines[at].partition(':')[0]}: {tag}"
    else:
        lines.insert(at, tag)
    return "\n".join(lines).encode()


def name_of(recipe: object) -> object:
    """What else is done with a recipe before anything is trained."""
    loaded = load_recipe(recipe)  # type: ignore[arg-type]
    assert load_recipe(loaded.plain()) == loaded
    return loaded.name


@given(data=st.data())
@cases(50, 600)
def test_recipe_files_load_or_are_refused(data: st.DataObject) -> None:
    with place() as here:
        path = here.write("recipe.yaml", data.draw(documents(str(here.marker))))
        judge("recipe file", here, lambda: name_of(path))


@given(tree=damaged(RECIPE))
@cases(30, 300)
def test_recipe_mappings_load_or_are_refused(tree: object) -> None:
    with place() as here:
        judge("recipe mapping", here, lambda: name_of(tree))


@st.composite
def assignments(draw: Draw, marker: str) -> str:
    key = draw(
        st.sampled_from(
            ["seed", "name", "data", "data.path", "model", "model.backbone", "model.dim", "objective.rho", "training"]
        )
        | st.sampled_from(
            ["training.augment", "training.rho_schedule", "training.epochs", "a.b.c", "", ".", "..", "a."]
        )
        | st.text(max_size=12)
    )
    value = draw(st.sampled_from([*map(str, SCALARS), *TAGS]) | st.text(max_size=20))
    value = value.replace("{marker}", marker)
    return draw(st.sampled_from([f"{key}={value}", f"{key}={value}", f"{key}.{value}=1", f"{key}{value}", f"={value}"]))


@given(data=st.data())
@cases(30, 300)
def test_overrides_load_or_are_refused(data: st.DataObject) -> None:
    with place() as here:
        items = data.draw(st.lists(assignments(str(here.marker)), min_size=1, max_size=3))
        judge("override", here, lambda: load_recipe(RECIPE, items))


@given(key=st.sampled_from(["seed", "model.backbone", "data", "training.augment", "x.y"]), value=values)
@cases(15, 150)
def test_overrides_of_any_type_load_or_are_refused(key: str, value: object) -> None:
    with place() as here:
        judge("override", here, lambda: load_recipe(RECIPE, {key: value}))


def _unreadable(here: Place, kind: str) -> str:
    path = here.folder / "recipe.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "link loop":
        path.symlink_to(path.name)
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "below a file":
        here.write("file", b"")
        return str(here.folder / "file" / "recipe.yaml")
    elif kind == "zero bytes":
        path.write_bytes(b"")
    elif kind == "long name":
        return "r" * 300 + ".yaml"
    elif kind == "null byte":
        return "a\0b.yaml"
    elif kind == "no name":
        return ""
    return str(path)


@pytest.mark.parametrize(
    "kind",
    ["folder", "link loop", "dangling link", "below a file", "zero bytes", "long name", "null byte", "no name", "none"],
)
def test_recipes_that_are_no_files_are_refused(kind: str) -> None:
    with place() as here:
        path = _unreadable(here, kind)
        assert judge("recipe file", here, lambda: load_recipe(path)) == "refused"


@pytest.mark.parametrize("name", LARGE)
def test_large_values_are_refused_in_a_short_sentence(name: str) -> None:
    value = LARGE[name]()
    with place() as here:
        for key in ("name", "seed", "data", "model.backbone", "objective.rho", "training.rho_schedule"):
            assert judge("recipe mapping", here, lambda key=key: load_recipe(RECIPE, {key: value})) == "refused"
