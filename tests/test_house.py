"""The house rules: rooms import one way only, and the light rooms stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import isthmus

SOURCE = Path(isthmus.__file__).parent

# A room may import rooms of its own rank or of an earlier one. Files of the first rank are plain data and file access.
ORDER = [
    [
        "errors",
        "types",
        "tradeoff",
        "files",
        "registry",
        "config",
        "recipe",
        "results",
        "provenance",
        "randomness",
        "cluster",
    ],
    ["information"],
    ["metrics"],
    ["data"],
    ["nets"],
    ["objectives"],
    ["observers"],
    ["attacks"],
    ["classifier"],
    ["training"],
    ["obfuscation"],
    ["checks"],
    ["report"],
    ["auditing"],
    ["targets"],
    ["attacking"],
    ["studies"],
    ["cli"],
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}


def room(path: Path) -> str:
    name = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return "cli" if name == "__main__" else name


def imported_rooms(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("isthmus.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "isthmus":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("isthmus."):
            found.add(node.module.split(".")[1])
        assert not (isinstance(node, ast.ImportFrom) and node.level), "imports are absolute"
    return found


FILES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.name != "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_rooms_import_one_way_only(path):
    upward = {r for r in imported_rooms(ast.parse(path.read_text("utf-8"))) if RANK[r] > RANK[room(path)]}
    assert not upward, f"{room(path)} may not import {upward}"


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


HEAVY = {"torch", "lightning_fabric", "matplotlib", "sklearn", "datasets", "scipy"}


@pytest.mark.parametrize(
    "code",
    [
        "import isthmus; dir(isthmus)",
        "import isthmus.cli\ntry: isthmus.cli.main(['--help'])\nexcept SystemExit: pass",
        "import isthmus.cli\ntry: isthmus.cli.main(['list'])\nexcept SystemExit: pass",
        "from isthmus import config, recipe, results, registry",
    ],
)
def test_light_imports_stay_light(code):
    assert not HEAVY & modules_after(code)


def test_the_page_is_drawn_without_torch():
    checks = "accuracy, calibration, corruptions, detection, information, obfuscation, robustness, shift"
    checks += ", fault_tolerance, reverse_channel, transfer"
    assert "torch" not in modules_after(
        f"import isthmus.report.page, isthmus.report.terminal\nfrom isthmus.checks import {checks}"
    )


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
