"""The architecture: packages import downwards only, without circles, and light ones stay light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import isthmus

SOURCE = Path(isthmus.__file__).parent

# Lowest first. A package may import from the packages before it and from itself.
ORDER = [
    "core",
    "information",
    "metrics",
    "data",
    "objectives",
    "models",
    "attacks",
    "certificates",
    "training",
    "diagnosis",
    "checks",
    "report",
    "audits",
    "compat",
    "studies",
    "cli",
]


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py")) if path.parent != SOURCE}


def type_checking_only(tree: ast.AST) -> set[int]:
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    return {id(node) for block in blocks for node in ast.walk(block)}


def imports(path: Path) -> Iterator[str]:
    """Modules of isthmus that a file imports when it runs, inside functions too."""
    tree = ast.parse(path.read_text("utf-8"))
    skipped = type_checking_only(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("isthmus."))
        elif isinstance(node, ast.ImportFrom) and id(node) not in skipped:
            assert not node.level, "imports are absolute"
            if (node.module or "").partition(".")[0] == "isthmus":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield inner if inner in FILES else node.module


@cache
def graph() -> dict[str, set[str]]:
    """The modules that each module imports; parsed when a test first asks, since every pytest process collects."""
    return {name: set(imports(path)) & (FILES.keys() - {name}) for name, path in FILES.items()}


@pytest.mark.parametrize("name", FILES)
def test_no_import_goes_upward(name):
    package = ORDER.index(name.split(".")[1])
    upward = {other for other in graph()[name] if ORDER.index(other.split(".")[1]) > package}
    assert not upward, f"{name} may not import {upward}"


def test_there_is_no_import_circle():
    order = TopologicalSorter(graph())
    try:
        order.prepare()
    except CycleError as error:
        pytest.fail("import circle: " + " -> ".join(error.args[1]))


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


HEAVY = {"torch", "lightning_fabric", "matplotlib", "sklearn", "datasets", "scipy"}


@pytest.mark.parametrize(
    "code",
    [
        "import isthmus; dir(isthmus)",
        "import isthmus.cli.app\ntry: isthmus.cli.app.main(['--help'])\nexcept SystemExit: pass",
        "import isthmus.cli.app\ntry: isthmus.cli.app.main(['list'])\nexcept SystemExit: pass",
        "from isthmus.core import config, recipe, results, registry",
    ],
)
def test_light_imports_stay_light(code):
    assert not HEAVY & modules_after(code)


def test_the_page_is_drawn_without_torch():
    sections = sorted(path.stem for path in (SOURCE / "report" / "sections").glob("[a-z]*.py"))
    assert "robustness" in sections
    imports = f"from isthmus.report.sections import {', '.join(sections)}"
    assert "torch" not in modules_after(f"import isthmus.report.page, isthmus.report.terminal\n{imports}")


def test_checks_import_no_display_code():
    display = {name for name in FILES if name.startswith("isthmus.report.")} | {"matplotlib", "jinja2"}
    for name in FILES:
        if name.startswith("isthmus.checks."):
            assert not graph()[name] & display, name
            assert "matplotlib" not in FILES[name].read_text("utf-8"), name


def test_every_public_name_can_be_had():
    for name in isthmus.__all__:
        assert getattr(isthmus, name).__doc__, name
    assert isthmus.__version__


def test_public_names_are_not_shadowed_by_modules():
    """`isthmus.audit` must stay the function, whatever was imported before."""
    names = [name for name in isthmus.__all__ if (SOURCE / f"{name}.py").exists() or (SOURCE / name).is_dir()]
    assert not names


def test_an_unknown_public_name_says_what_there_is():
    with pytest.raises(AttributeError, match="robust_accuracy"):
        _ = isthmus.robust_acuracy
