"""The command line as a stranger uses it: real processes, what they print, and how they fail."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from isthmus.cli import app

RECIPE = {
    "data": {"name": "digits", "train_limit": 320, "test_limit": 60},
    "model": {"backbone": {"name": "mlp", "hidden": [32]}, "dim": 4},
    "objective": {"name": "ceb", "rho": 1},
    "training": {"epochs": 4, "batch_size": 64, "optimizer": {"lr": 0.02}},
}
THEIRS = """
import torch
from torch import nn
def build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
class Nan(nn.Module):
    def forward(self, x): return x.flatten(1)[:, :10] * float("nan")
class Shape(nn.Module):
    def forward(self, x): return x
class Cut(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        nn.init.zeros_(self.layer.weight)  # always the class of the largest bias, so that some images are right
    def forward(self, x): return self.layer(x.detach().flatten(1))
def cut(): return Cut()
def trained():
    from sklearn.datasets import load_digits
    images, labels = (torch.tensor(each) for each in load_digits(return_X_y=True))
    means = torch.stack([images[labels == k].mean(0) for k in range(10)]).float() / 16
    model = build()
    model[1].weight.data, model[1].bias.data = means, -means.square().sum(1) / 2
    return model
def nan(): return Nan()
def shape(): return Shape()
def five(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
def local():
    model = build()
    model.shift = lambda x: x
    return model
"""


def isthmus(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"} | environment
    command = [sys.executable, "-m", "isthmus.cli.app", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a recipe, a foreign model, and one trained and audited run."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "small.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "theirs.py").write_text(THEIRS)
    trained = isthmus("train", "small.yaml", "seed=3", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.splitlines()[-1] == f"run: {Path('runs/small')}"
    assert "test accuracy: " in trained.stdout
    checks = ("--checks", "accuracy,calibration,information")
    audited = isthmus("audit", "runs/small", "--threat", "linf:0.05", "--n", 40, *checks, cwd=folder)
    assert audited.returncode == 0, audited.stderr
    assert audited.stdout.splitlines()[-1] == f"page: {Path('runs/small/page.html')}"
    assert "clean accuracy" in audited.stdout
    return folder


def test_a_run_is_trained_with_overrides_and_audited(home):
    info = json.loads((home / "runs/small/run.json").read_text())
    assert (info["recipe"]["seed"], info["given"]["seed"]) == (3, 3)
    record = json.loads((home / "runs/small/audit/audit.json").read_text())
    assert (record["n"], record["model"], record["settings"]["threat"]) == (40, "small", "linf:0.05")
    assert "<html" in (home / "runs/small/page.html").read_text()


def test_a_report_compares_runs_without_torch(home, tmp_path):
    shadow = tmp_path / "torch.py"
    shadow.write_text("raise ImportError('the report imported torch')")
    done = isthmus(
        "report", "runs/small", "runs/small", "--out", tmp_path / "r.html", cwd=home, PYTHONPATH=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"page: {tmp_path / 'r.html'}"


def test_what_is_not_audited_is_left_out_of_a_report(home, tmp_path):
    shutil.copytree(home / "runs/small", tmp_path / "runs/whole")
    shutil.copytree(home / "runs/small", tmp_path / "runs/unaudited", ignore=shutil.ignore_patterns("audit"))
    (tmp_path / "runs/demo").mkdir()
    (tmp_path / "runs/demo/inner").symlink_to(tmp_path / "runs/whole")
    arguments = ["report", *sorted(path.relative_to(tmp_path) for path in (tmp_path / "runs").iterdir())]
    for _ in "again":  # the page itself is among the arguments then
        done = isthmus(*arguments, "runs/page.html", "--out", "runs/page.html", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines() == [
            "Warning: left out, since there is no finished audit in them: runs/demo, runs/unaudited"
        ]
    none = isthmus("report", "runs/demo", "runs/unaudited", cwd=tmp_path)
    assert none.returncode == 2
    assert none.stderr == "Error: runs/demo holds no audit, but folders in it do; give those: runs/demo/*.\n"
    (tmp_path / "runs/whole/audit/accuracy.json").write_text("{")
    damaged = isthmus(*arguments, cwd=tmp_path)
    assert damaged.returncode == 2
    assert "accuracy.json" in damaged.stderr


def test_a_check_that_breaks_off_is_said_and_is_no_success(home):
    audit = ("audit", "--model", "theirs:cut", "--data", "digits", "--n", 30, "--threat", "linf:0.1")
    done = isthmus(*audit, "--checks", "accuracy,robustness", cwd=home)
    assert done.returncode == 2
    said = " ".join(done.stdout.split())
    assert "fail accuracy of theirs.cut" in said
    assert "error robustness of theirs.cut" in said
    assert "gradient" in said
    assert done.stdout.splitlines()[-1] == f"page: {Path('runs/theirs.cut/page.html')}"
    assert done.stderr.startswith("Error: robustness of theirs.cut broke off")
    assert (home / "runs/theirs.cut/audit/accuracy.json").exists()
    assert "broke off with an error" in (home / "runs/theirs.cut/page.html").read_text()
    other = isthmus(*audit, "--checks", "accuracy", cwd=home)
    assert "broke off" not in other.stderr, "the check that broke off was not asked this time"
    assert other.returncode == 2
    assert "Error: theirs.cut is at chance. " in other.stderr
    assert "Nearly all answers are class" in other.stderr
    doubted = isthmus(*audit, "--checks", "diagnosis", "--passes", 40, cwd=home)
    assert (doubted.returncode, "Error: theirs.cut is at chance. " in doubted.stderr) == (2, True)
    absent = isthmus(*audit, "--checks", "transfer:folder:nowhere", cwd=home)
    assert absent.returncode == 2
    assert "Error: transfer of theirs.cut broke off" in absent.stderr
    assert isthmus("report", "runs/theirs.cut", cwd=home).returncode == 0


def test_a_foreign_model_is_audited(home):
    arguments = (
        "audit",
        "--model",
        "theirs:trained",
        "--data",
        "digits",
        "--n",
        30,
        "--checks",
        "accuracy,calibration",
    )
    done = isthmus(*arguments, cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"page: {Path('runs/theirs.trained/page.html')}"
    assert not (home / "runs/theirs.trained/audit/robustness.json").exists()


def test_list_names_what_there_is(home):
    done = isthmus("list", "objectives", cwd=home)
    assert " ".join(done.stdout.split()) == (
        "objectives: bidirectional, catgen, ceb, denoising, deterministic, donsker_varadhan, energy_based, "
        "f_divergence, hierarchical, multiscale, nonlinear_ib, predictive, vib"
    )


@pytest.mark.parametrize("columns", ["80", "40", ""])  # without it, output to a pipe has 80
def test_list_breaks_lines_between_words(tmp_path, columns):
    lines = isthmus("list", cwd=tmp_path, COLUMNS=columns).stdout.splitlines()
    assert max(map(len, lines)) <= int(columns or 80)
    words = {word.strip(",") for line in lines for word in line.split()}
    assert {"donsker_varadhan", "multitargeted", "closer-look/figure-10", "rate-distortion/figure-6"} <= words


def test_nothing_given_shows_the_help(home):
    done = isthmus(cwd=home)
    assert done.returncode == 0
    assert "Train information-bottleneck classifiers" in done.stdout
    assert done.stderr == ""


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
    "weights that are cut off": (["audit", "cut"], "not a readable safetensors file"),
    "workers without a cluster": (
        ["audit", "runs/small", "--jobs", "2"],
        "--jobs of an audit are workers on a cluster",
    ),
    "a damaged result": (["report", "damaged"], "accuracy.json"),
    "a folder without an audit": (["report", "empty"], "holds no audit"),
    "nothing to attack": (["attack"], "Give a run folder"),
    "an unknown suite": (["attack", "runs/small", "--suite", "standart"], "Did you mean 'standard'"),
    "an unknown attack among others": (["attack", "runs/small", "--suite", "fgsm,pdg:3"], "Did you mean 'pgd'"),
    "a wrong half-width": (["attack", "runs/small", "--until", "1.5.%"], "written 1% or 0.01"),
    "a half-width of everything": (["attack", "runs/small", "--until", "100%"], "below 1; got '100%'"),
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
def spoiled(home) -> Path:
    """The same folder with things that went wrong in it."""
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


ALONE = {"a hub dataset without a network", "a model that workers cannot have", "NaN logits", "a misspelt option"}
"""These run in processes of their own, as strangers' do; the others in this one, which has imported everything."""


@pytest.mark.parametrize("case", FAILURES)
def test_mistakes_are_one_sentence_and_exit_code_two(spoiled, case, monkeypatch, capsys):
    arguments, sentence = FAILURES[case]
    if case in ALONE:
        done = isthmus(*arguments, cwd=spoiled, ISTHMUS_DATA="", HF_HUB_OFFLINE="1")
        code, said = done.returncode, done.stderr
    else:
        monkeypatch.chdir(spoiled)
        monkeypatch.syspath_prepend(spoiled)
        monkeypatch.delitem(sys.modules, "theirs", raising=False)
        monkeypatch.setenv("ISTHMUS_DATA", "")
        with pytest.raises(SystemExit) as end:
            app.main(arguments)
        monkeypatch.delitem(sys.modules, "theirs", raising=False)
        code, said = end.value.code, capsys.readouterr().err
    assert code == 2, said
    assert sentence in " ".join(said.replace("│", " ").split())
    assert "Traceback" not in said
    assert not (spoiled / "x").exists()


def test_debug_shows_the_traceback(home):
    done = isthmus("audit", "runs/none", "--debug", cwd=home)
    assert "Traceback" in done.stderr
    assert "FileError" in done.stderr


def test_a_full_disk_keeps_what_was_done(home, tmp_path):
    """A real limit on file size stands in for the disk: the checkpoint does not fit, the first metrics do."""
    command = [
        sys.executable,
        "-m",
        "isthmus.cli.app",
        "train",
        str(home / "small.yaml"),
        "--out",
        str(tmp_path / "run"),
    ]
    code = "import resource, signal, runpy, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); sys.argv = sys.argv[1:]; "
    code += "runpy.run_module('isthmus.cli.app', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, *command[2:]],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 2, done.stderr
    assert "Cannot write" in done.stderr
    assert (tmp_path / "run" / "run.json").exists()
    assert not list((tmp_path / "run").glob(".checkpoint*"))
    assert subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True).returncode == 0


def test_the_demo_compares_its_classifiers(tmp_path, monkeypatch):
    """With two of the five and few checks; all of them take a minute and a half."""
    from isthmus.studies import demo

    monkeypatch.setattr(demo, "OBJECTIVES", {name: demo.OBJECTIVES[name] for name in ("determ", "ceb-rho4")})
    monkeypatch.setattr(demo, "CHECKS", ("accuracy", "calibration", "memorisation"))
    page = demo.run_demo(tmp_path, show_progress=False).read_text()
    for name in ("determ", "ceb-rho4"):
        assert name in page
        record = json.loads((tmp_path / name / "audit" / "accuracy.json").read_text())
        assert record["metrics"]["accuracy"]["value"] > 0.9


@pytest.mark.slow
def test_the_demo_compares_five_classifiers(tmp_path):
    done = isthmus("demo", "--out", "demo", cwd=tmp_path, ISTHMUS_DATA="")
    assert done.returncode == 0, done.stderr
    page = tmp_path / "demo" / "page.html"
    assert done.stdout.splitlines()[-1] == f"page: {Path('demo/page.html')}"
    for name in ("determ", "vib-rho0", "vib-rho4", "ceb-rho0", "ceb-rho4"):
        assert name in page.read_text()
        record = json.loads((tmp_path / "demo" / name / "audit" / "accuracy.json").read_text())
        assert record["metrics"]["accuracy"]["value"] > 0.9
    again = isthmus("demo", "--out", "demo", cwd=tmp_path)
    assert again.returncode == 0


def test_memory_that_is_missing_is_one_sentence(monkeypatch, capsys):
    from isthmus import data
    from isthmus.cli import app

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
