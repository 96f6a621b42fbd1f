"""The run folder's format: folders of other versions of isthmus are recognised and explained."""

import shutil
from pathlib import Path

import pytest

import isthmus
from isthmus.cli import app
from isthmus.core import files
from isthmus.core.errors import FileError
from isthmus.core.run_file import FORMAT
from isthmus.metrics import wilson
from isthmus.training.run import Run
from tests.training.recipes import TINY


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return isthmus.train(TINY, {"training.epochs": 1}, out=tmp_path_factory.mktemp("run") / "run", progress=False).path


@pytest.fixture
def rewritten(trained, tmp_path):
    """A copy of the run whose run.json has another format and recipe."""

    def copy(version: object = None, **recipe: object) -> Run:
        run = Run(shutil.copytree(trained, tmp_path / "old"))
        content = {key: value for key, value in run.info().items() if key != "format"}
        content["recipe"] = {key: v for key, v in (content["recipe"] | recipe).items() if v is not None}
        content["starts"][0] |= {"packages": {"isthmus": "0.1.0"}, "commit": "abc123"}
        files.write_json(run.path / "run.json", content if version is None else {"format": version} | content)
        return run

    return copy


def test_run_json_names_its_format(trained):
    assert files.read_json(trained / "run.json")["format"] == FORMAT


@pytest.mark.parametrize("version", [1, FORMAT + 1, "3"])
def test_another_format_is_refused(rewritten, version):
    run = rewritten(version)
    for read in (run.load, run.info, lambda: isthmus.train(TINY, out=run.path, progress=False)):
        with pytest.raises(FileError) as raised:
            read()
        message = str(raised.value)
        assert f"another version of isthmus, isthmus 0.1.0 at commit abc123 (its format is {version!r}," in message
        assert f"expected {FORMAT}). Use that version, or train again in another folder (--out)." in message


@pytest.mark.parametrize(
    ("recipe", "fault"),
    [
        ({"observe": ["accuracy"]}, "recipe: There is no key 'observe'"),
        ({"objective": {"name": "ceb", "gamma": 3}}, "There is no key 'gamma'"),
        ({"data": None}, "data: Field required"),
        ({"training": {"epochs": 1}}, "its recipe does not give training.accelerator, training.accumulate"),
        ({"seed": None}, "its recipe does not give seed)"),
    ],
)
def test_a_folder_without_a_format_needs_the_keys_of_this_version(rewritten, recipe, fault):
    run = rewritten(**recipe)
    for read in (run.load, lambda: run.recipe, lambda: isthmus.train(TINY, out=run.path, progress=False)):
        with pytest.raises(FileError) as raised:
            read()
        message = str(raised.value)
        assert f"isthmus 0.1.0 at commit abc123 (it has no format, expected {FORMAT}; " in message
        assert fault in message
        assert "train again in another folder" in message


def test_a_folder_without_a_format_and_with_those_keys_is_read(rewritten):
    run = rewritten()
    assert run.load() is not None
    assert isthmus.train(TINY, {"training.epochs": 1}, out=run.path, progress=False).path == run.path


def test_the_command_line_explains_it(rewritten, capsys):
    run = rewritten(observe=["accuracy"])
    with pytest.raises(SystemExit) as end:
        app.main(["audit", str(run.path)])
    assert end.value.code == 2
    assert "was written by another version of isthmus" in capsys.readouterr().err


def test_a_run_shows_status_and_accuracy_and_its_epochs_as_a_table(trained, tmp_path):
    run, n = Run(trained), Run(trained).info()["data"]["test"]
    result = run.info()["result"]
    ends = wilson(round(result["test_accuracy"] * n), n)
    interval = f"{100 * ends.low:.1f}–{100 * ends.high:.1f}"
    assert repr(run).splitlines() == [
        f"Run: {run.recipe.name} in {trained}",
        f"status: {run.info()['status']}, step {result['step']}",
        f"test accuracy: {result['test_accuracy']:.1%} (95% interval {interval}, n = {n})",
    ]
    table = run.to_dataframe()
    (end,) = [line for line in run.metrics() if "epoch_ce" in line]
    assert table["epoch"].tolist() == [1]
    assert table["ce"].tolist() == [end["epoch_ce"]]
    assert table["test_accuracy"].tolist() == [result["test_accuracy"]]
    assert repr(Run(tmp_path / "none")).startswith(f"Run: {tmp_path / 'none'}\nstatus: There is no run folder")


def test_a_folder_with_only_an_audit_says_so(tmp_path):
    (tmp_path / "audit").mkdir()
    with pytest.raises(FileError, match="holds an audit of another model and no trained run; name that model by --mod"):
        Run(tmp_path).info()
