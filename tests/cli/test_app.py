"""The command line as a whole: help, mistakes, errors and exit codes."""

import os
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pytest
import typer

from isthmus import data
from isthmus.cli import app
from tests.cli.commands import isthmus, isthmus_process


def test_nothing_given_shows_the_help(tmp_path):
    done = isthmus_process(cwd=tmp_path)
    assert done.returncode == 0
    assert "Train information-bottleneck classifiers" in done.stdout
    assert "<" not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", app.app.registered_commands, ids=lambda command: command.callback.__name__)
def test_help_fills_its_lines_at_any_width(command, width, monkeypatch, capsys):
    """A line ends only where the next word does not fit."""
    monkeypatch.setenv("COLUMNS", str(width))
    name = command.name or command.callback.__name__
    with pytest.raises(SystemExit):
        app.main([name, "--help"])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    text = lines[next(i for i, line in enumerate(lines) if line.startswith("Usage")) + 1 :]
    text = text[: next(i for i, line in enumerate(text) if line.startswith("╭"))]
    for line, following in pairwise(text):
        if line and following and not following.startswith("•"):
            assert len(line) + len(following.split()[0]) + 1 > width - 6
    words = " ".join(" ".join(text).replace("•", "").split())
    assert words == " ".join(command.callback.__doc__.replace("* ", "").split())


@pytest.mark.parametrize("command", app.COMMANDS)
def test_help_groups_options_and_ends_with_two_commands_that_parse(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        app.main([command, "-h"])
    shown = capsys.readouterr().out
    assert "range" not in shown
    assert "x>=0" not in shown
    assert "<" not in shown, "no Python types"
    known = typer.main.get_command(app.app).commands
    examples = [line.strip() for line in shown.split("Examples:")[1].splitlines() if line.strip()]
    assert len(examples) == 2
    for example in examples:
        program, verb, *rest = shlex.split(example)
        assert (program, verb) == ("isthmus", command)
        known[verb].make_context(verb, rest)
    options = [each for each in known[command].params if each.opts[0].startswith("--")]
    assert {each.rich_help_panel for each in options} <= {"Model", "Data", "Attack", "Output", "Execution"}


def test_the_version(home):
    assert isthmus("--version", cwd=home).stdout == f"isthmus {version('isthmus')}\n"


def test_shells_complete_the_last_name_of_a_list():
    asked = {"_ISTHMUS_COMPLETE": "complete_bash", "COMP_WORDS": "isthmus attack --suite fgsm,pg", "COMP_CWORD": "3"}
    code = "import sys; sys.argv = ['isthmus']; from isthmus.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["fgsm,pgd"]


@pytest.mark.parametrize("verb", [["audit"], ["attack"], ["verify", "w.safetensors"], ["report"]], ids=" ".join)
@pytest.mark.parametrize(
    ("given", "advice"), [("mycnn.py", "--model mycnn:FUNCTION --data DATA"), ("w.safetensors", "--weights w.safe")]
)
def test_no_one_is_told_to_delete_a_file_of_their_own(tmp_path, monkeypatch, capsys, verb, given, advice):
    """A file where a run folder is expected, in any verb that takes one."""
    monkeypatch.chdir(tmp_path)
    for name in ("mycnn.py", "w.safetensors"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(SystemExit) as end:
        app.main([*verb, given])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert "delete" not in said.lower()
    if verb in (["audit"], ["attack"]):
        assert f"{given} is a file; a run folder is what" in said
        assert advice in said


FAILURES = {
    "a misspelt key": (["train", "small.yaml", "objectiv.rho=2"], "no key 'objectiv'. Did you mean 'objective'"),
    "a misspelt objective": (["train", "small.yaml", "objective=cebb"], "Did you mean 'ceb'"),
    "a missing recipe": (["train", "none.yaml"], "Cannot read the recipe none.yaml"),
    "another recipe in the run folder": (["train", "small.yaml", "seed=4"], "another recipe (different: seed)"),
    "an empty data folder": (["train", "small.yaml", "data=folder:empty", "--out", "x"], "empty"),
    "an unreadable image": (["train", "small.yaml", "data=folder:unreadable", "--out", "x"], "broken.png"),
    "a hub dataset without a network": (["train", "small.yaml", "data=svhn", "--out", "x"], "ISTHMUS_DATA"),
    "a missing run": (["audit", "runs/none"], "no run folder"),
    "a model without --model": (["audit", "theirs:build"], "Your own model: --model theirs:build"),
    "a folder of images without its kind": (["audit", "--model", "theirs:build", "--data", "empty"], "folder:empty"),
    "no images": (["audit", "runs/small", "--n", "0"], "0 is below 1"),
    "nothing to audit": (["audit"], "Give a run folder"),
    "a wrong threat": (["audit", "runs/small", "--threat", "linff:0.1"], "Did you mean 'linf'"),
    "a negative threat": (["audit", "runs/small", "--threat", "linf:-1"], "-1"),
    "an unknown check": (["audit", "runs/small", "--checks", "acuracy"], "Did you mean 'accuracy'"),
    "a model that is not there": (["audit", "--model", "theirs:none", "--data", "digits"], "Cannot find 'theirs:none'"),
    "a model without data": (["audit", "--model", "theirs:build"], "needs --data"),
    "NaN logits": (["audit", "--model", "theirs:nan", "--data", "digits"], "NaN or infinities"),
    "an output of the wrong shape": (["audit", "--model", "theirs:shape", "--data", "digits"], "expected (2, classes)"),
    "labels out of range": (["audit", "--model", "theirs:five", "--data", "digits"], "label"),
    "weights that do not fit": (
        ["audit", "--model", "theirs:build", "--weights", "runs/small/weights.safetensors", "--data", "digits"],
        "do not fit the model",
    ),
    "weights that are cut off": (["audit", "cut"], "neither a readable safetensors file"),
    "workers without a cluster": (
        ["audit", "runs/small", "--jobs", "2"],
        "--jobs of an audit needs --executor ray",
    ),
    "a damaged result": (["report", "damaged"], "accuracy.json"),
    "a folder without an audit": (["report", "empty"], "holds no audit"),
    "nothing to attack": (["attack"], "Give a run folder"),
    "an unknown suite": (["attack", "runs/small", "--suite", "standart"], "Did you mean 'standard'"),
    "an unknown attack among others": (["attack", "runs/small", "--suite", "fgsm,pdg:3"], "Did you mean 'pgd'"),
    "a wrong half-width": (["attack", "runs/small", "--ci-half-width", "1.5.%"], "written 1% or 0.01"),
    "a half-width of everything": (["attack", "runs/small", "--ci-half-width", "100%"], "below 1; got '100%'"),
    "a folder to write to": (["attack", "runs/small", "--out", "empty"], "names a file; empty is a folder"),
    "a model that workers cannot have": (
        ["attack", "--model", "theirs:local", "--data", "digits", "--suite", "fgsm", "--jobs", "2", "--out", "w/w"],
        "use jobs=1",
    ),
    "an evaluation of something else": (
        ["attack", "runs/small", "--suite", "fgsm", "--out", "other.safetensors"],
        "other.evaluation.safetensors is not a readable evaluation",
    ),
    "witnesses that are not there": (["verify", "none", "runs/small"], "There is no file none"),
    "witnesses that are something else": (["verify", "small.yaml", "runs/small"], "not a readable robustness result"),
    "witnesses of no model": (["verify", "runs/small/run.json"], "not a readable robustness result"),
    "a misspelt option": (["audit", "runs/small", "--threatt", "linf:1"], "--threatt"),
    "an unknown verb": (["trian"], "trian"),
    "an unknown kind": (["list", "objective"], "Did you mean 'objectives'"),
}


@pytest.fixture(scope="module")
def spoiled(home, tmp_path_factory) -> Path:
    """A copy of that folder with things that went wrong in it."""
    home = shutil.copytree(home, tmp_path_factory.mktemp("spoiled") / "home")
    (home / "empty").mkdir()
    for split in ("train", "test"):
        (home / "unreadable" / split / "a").mkdir(parents=True)
        (home / "unreadable" / split / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    (home / "other.evaluation.safetensors").write_bytes(b"not an evaluation")
    for name in ("cut", "damaged"):
        shutil.copytree(home / "runs/small", home / name)
    weights = home / "cut" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    (home / "damaged/audit/accuracy.json").write_text("{")
    return home


ALONE = {"a hub dataset without a network", "a misspelt option"}
"""These run in a separate process, as users' do; the others in this one, which has imported everything."""


@pytest.mark.parametrize("case", FAILURES)
def test_mistakes_are_one_sentence_and_exit_code_two(spoiled, case):
    arguments, sentence = FAILURES[case]
    call = isthmus_process if case in ALONE else isthmus
    done = call(*arguments, cwd=spoiled, ISTHMUS_DATA="", HF_HUB_OFFLINE="1")
    code, said = done.returncode, done.stderr
    assert code == 2, said
    assert sentence in " ".join(said.replace("│", " ").split())
    assert "Traceback" not in said
    assert not (spoiled / "x").exists()


def test_debug_shows_the_traceback(tmp_path):
    done = isthmus_process("audit", "runs/none", "--debug", cwd=tmp_path)
    assert "Traceback" in done.stderr
    assert "FileError" in done.stderr


def test_memory_that_is_missing_is_one_sentence(monkeypatch, capsys):
    def hungry(_):
        raise MemoryError("Unable to allocate 28.0 GiB")

    monkeypatch.setattr(data.loading, "load", hungry)
    monkeypatch.setattr("isthmus.training.start.load", hungry)
    with pytest.raises(SystemExit) as ended:
        app.main(["train", "examples/recipes/mnist-vib.yaml", "--out", "runs/none"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "not enough memory" in said
    assert "28.0 GiB" in said
    with pytest.raises(MemoryError):
        app.main(["train", "examples/recipes/mnist-vib.yaml", "--out", "runs/none", "--debug"])
