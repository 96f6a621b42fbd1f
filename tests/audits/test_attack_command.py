"""The attack and verify verbs: real processes on the embedded digits, and what options mean."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save_file

from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.engine.evaluation import Snapshot
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.result import RobustResult
from isthmus.audits import attack_command
from isthmus.core import config
from isthmus.core.errors import ConfigError, FileError
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced

THEIRS = """
import os, time
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, calls=None):
        super().__init__()
        self.layers, self.calls = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double(), calls

    def forward(self, images):
        if self.calls is not None:
            self.calls += 1
            while self.calls > 100 and os.path.exists("hold"):
                time.sleep(0.01)
        return self.layers(images.double())

def build(): return Net()
def held(): return Net(0)
"""
MODEL = ("--weights", "weights.safetensors", "--data", "digits")
FAST = ("--model", "theirs:build", *MODEL)
HELD = ("--model", "theirs:held", *MODEL)  # waits after 100 calls, in the middle of pgd, while there is a file "hold"
LONG = ("--suite", "fgsm,pgd:400", "--threat", "linf:0.03", "--n", 40, "--batch-size", 20, "--seed", 3, "--quiet")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a foreign model and weights: a linear classifier fitted to the digits by ridge regression."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "theirs.py").write_text(THEIRS)
    train = load(config.component("data", "digits")).train
    flat = torch.cat([as_float(train.images).flatten(1), torch.ones(len(train), 1)], 1).double()
    wanted = torch.nn.functional.one_hot(train.labels, 10).double()
    fitted = torch.linalg.solve(flat.T @ flat + 3 * torch.eye(65).double(), flat.T @ wanted)
    weights = {"layers.1.weight": fitted[:-1].T.contiguous(), "layers.1.bias": fitted[-1].contiguous()}
    save_file(weights, folder / "weights.safetensors")
    return folder


def started(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "ISTHMUS_DATA": ""}
    command = [sys.executable, "-m", "isthmus.cli.app", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=cwd, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True, preexec_fn=listen
    )


def listen() -> None:
    """A shell's background jobs ignore SIGINT, and so would what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def isthmus(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    process = started(*arguments, cwd=cwd)
    said, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, said, errors)


@contextmanager
def held_in_pgd(home: Path, checkpoint: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """An attack that has finished fgsm, and waits in pgd however fast the machine is."""
    (home / "hold").touch()
    process = started(*arguments, cwd=home)
    try:
        while not (checkpoint.exists() and json.loads(EvaluationState.load(checkpoint)[1])["at"] == 1):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        (home / "hold").unlink()


@pytest.fixture(scope="module")
def witnesses(home) -> Path:
    done = isthmus("attack", *FAST, *LONG, "--out", "w.safetensors", cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "witnesses: w.safetensors"
    return home / "w.safetensors"


def same(a: RobustResult, b: RobustResult) -> bool:
    """Whether two results broke the same examples, with the same witnesses, in the same way."""
    columns = ("correct", "broken", "stage", "adversarial", "run", "step", "target_class")
    pairs = [(getattr(a.state, name), getattr(b.state, name)) for name in columns]
    return all(torch.equal(x.nan_to_num(-7), y.nan_to_num(-7)) for x, y in pairs) and a.attacks == b.attacks


def test_an_attack_prints_what_the_file_holds(home, witnesses):
    said = isthmus("attack", *FAST, *LONG, "--out", "again.safetensors", "--jobs", 2, cwd=home).stdout
    result = RobustResult.load(home / "again.safetensors")
    assert same(result, RobustResult.load(witnesses))
    assert result.complete
    assert 0 < result.accuracy < result.clean_accuracy
    interval = f"[{100 * result.interval.low:.2f}, {100 * result.interval.high:.2f}]"
    assert f"robust accuracy: {100 * result.accuracy:.2f}%, 95% interval {interval}, n = 40, linf:0.03" in said
    assert f"example-passes: {result.forward_passes + result.backward_passes:,}" in said
    rows = re.findall(r"│ (\w+) +│ +([\d.]+)% │ +(\d+) │ +([\d,]+) │", said)
    assert [row[0] for row in rows] == ["clean", "fgsm", "pgd"]
    assert [float(row[1]) for row in rows] == [round(100 * left, 2) for left in result.by_attack.values()]
    assert sum(int(row[2]) for row in rows) == result.broken.sum()
    assert [int(row[3].replace(",", "")) for row in rows] == list(result.spent)
    assert not list(home.glob("*.evaluation.*")), "the checkpoint is gone"


def test_verification_agrees_and_compares_the_examples(home, witnesses):
    for options, sentence in ((FAST, "those of the data set, bit for bit"), (FAST[:4], "not compared")):
        done = isthmus("verify", witnesses, *options, cwd=home)
        assert done.returncode == 0, done.stderr
        assert sentence in done.stdout
        last = done.stdout.splitlines()[-1]
        assert last.startswith("verified: robust accuracy is at most ")
        assert "on these 40 images (SHA-256 " in last
        assert last.endswith("at linf:0.03; the attacks that the file names are not verified (clean, fgsm, pgd)")


@pytest.mark.parametrize(
    ("expected", "words"),
    [({"count": 41}, "holds 40 examples, and --n 41"), ({"threat": "linf:0.02"}, "is about linf:0.03")],
)
def test_a_file_about_fewer_images_or_another_threat_is_refused(home, witnesses, expected, words):
    with pytest.raises(FileError, match=words):
        attack_command.verify(witnesses, None, **_named(home), **expected)
    fits = attack_command.verify(witnesses, None, **_named(home), threat="linf:0.03", count=40)
    assert fits.agrees
    assert len(fits.examples) == 64


def test_a_claim_that_does_not_hold_is_exit_code_two(home, witnesses, tmp_path):
    with safe_open(witnesses, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["adversarial"][0] = tensors["images"][tensors["broken"] & (tensors["stage"] > 0)][0].float() / 255
    save_file(tensors, tmp_path / "forged", metadata)
    done = isthmus("verify", tmp_path / "forged", *FAST, cwd=home)
    assert done.returncode == 2
    assert "1 × the adversarial image is not misclassified" in done.stdout
    assert "checksum: the file is NOT as it was written" in done.stdout
    assert done.stderr.startswith("Error: what ")
    other = isthmus("verify", witnesses, "--model", "theirs:build", cwd=home)  # other weights: another model
    assert other.returncode == 2


def test_a_killed_attack_goes_on_to_the_same_result(home, witnesses):
    checkpoint = home / "killed.evaluation.safetensors"
    with held_in_pgd(home, checkpoint, "attack", *HELD, *LONG, "--out", "killed.safetensors") as process:
        process.kill()
        process.communicate()
    assert not (home / "killed.safetensors").exists()
    other = isthmus("attack", *HELD, *LONG, "--seed", 4, "--out", "killed.safetensors", cwd=home)
    assert other.returncode == 2
    assert "holds an evaluation with other" in other.stderr
    done = isthmus("attack", *HELD, *LONG, "--out", "killed.safetensors", cwd=home)
    assert done.returncode == 0, done.stderr
    result, whole = RobustResult.load(home / "killed.safetensors"), RobustResult.load(witnesses)
    assert same(result, whole)
    assert result.spent[1] == whole.spent[1], "fgsm was not gone through again"
    assert result.spent[0] < whole.spent[0] + len(whole), "nor were clean images, but for a few to know the model by"
    assert not checkpoint.exists()


@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ctrl_c_leaves_a_valid_result_and_a_way_on(home, witnesses, jobs):
    command = ("attack", *HELD, *LONG, "--out", f"stopped{jobs}.safetensors", "--jobs", jobs)
    checkpoint = home / f"stopped{jobs}.evaluation.safetensors"
    with held_in_pgd(home, checkpoint, *command) as process:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        said, errors = process.communicate()
    assert process.returncode == 130, errors
    again = shlex.join(["isthmus", *map(str, command)])
    assert errors.strip() == f"Interrupted. What was done is kept. To resume: {again}"
    assert "robust accuracy is at most this" in said
    partial, whole = RobustResult.load(home / f"stopped{jobs}.safetensors"), RobustResult.load(witnesses)
    assert not partial.complete
    assert partial.accuracy >= whole.accuracy
    checked = isthmus("verify", f"stopped{jobs}.safetensors", *FAST, cwd=home)
    assert checked.returncode == 0, checked.stderr
    assert "not over" in checked.stdout
    assert isthmus(*command, cwd=home).returncode == 0
    assert same(RobustResult.load(home / f"stopped{jobs}.safetensors"), whole)
    assert not checkpoint.exists()


def test_until_stops_early_and_its_examples_are_known_again(home):
    options = ("--suite", "fgsm", "--threat", "linf:0.03", "--until", "±5%", "--out", "until.safetensors")
    done = isthmus("attack", *FAST, *options, cwd=home)
    assert done.returncode == 0, done.stderr
    result = RobustResult.load(home / "until.safetensors")
    test = load(config.component("data", "digits")).test
    assert len(result) < len(test)
    assert result.interval.high - result.interval.low <= 0.1
    claim = attack_command.verify(home / "until.safetensors", None, **_named(home))
    assert claim.agrees
    assert claim.examples_match


def test_a_budget_of_queries_ends_an_attack_with_an_upper_bound(home):
    limited = ("--n", 20, "--suite", "fgsm,pgd:100", "--threat", "linf:0.03", "--max-queries", 700, "--out", "few.st")
    done = isthmus("attack", *FAST, *limited, cwd=home)
    assert done.returncode == 5, done.stderr
    assert done.stderr.startswith("about ")
    assert "--max-queries ends it at 700" in done.stderr
    assert "the budget of queries is spent" in done.stdout
    assert "robust accuracy is at most this" in done.stdout
    result = RobustResult.load(home / "few.st")
    assert not result.complete
    assert result.forward_passes + result.backward_passes <= 700
    with pytest.raises(ConfigError, match="does not even cover the clean images"):
        attack_command.attack(None, **_named(home), count=20, out=home / "none.st", max_queries=10, show_progress=False)


def _named(home: Path) -> dict:
    sys.path.insert(0, str(home))
    return {"model": "theirs:build", "weights": home / "weights.safetensors", "data": "digits"}


def test_the_default_place_is_the_models_folder(home, monkeypatch):
    monkeypatch.chdir(home)
    result, path = attack_command.attack(None, **_named(home), suite="fgsm", count=20, show_progress=False)
    assert path == Path("runs/theirs.build-weights/attack-fgsm-linf-0.1-n20.safetensors")
    indices = balanced(load(config.component("data", "digits")).test.labels)[:20]
    test = load(config.component("data", "digits")).test.select(indices)
    assert torch.equal(result.examples.images, as_float(test.images))


def test_a_finished_evaluation_is_not_overwritten_by_a_quicker_one(home, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    first = {"count": 10, "suite": "fgsm,pgd:2", "threat": "linf:8/255", "show_progress": False, **_named(home)}
    _, path = attack_command.attack(None, **first)
    assert path.name == "attack-fgsm+pgd-2-linf-8_255-n10.safetensors"
    for other in ({"suite": "fgsm"}, {"threat": "linf:0.2"}, {"count": 11}):
        assert attack_command.attack(None, **first | other)[1] != path
    before = path.read_bytes()
    for out in (None, path):
        with pytest.raises(ConfigError, match=f"{re.escape(str(path))} exists already.*--out.*--force"):
            attack_command.attack(None, **first, seed=1, out=out)
    assert path.read_bytes() == before
    attack_command.attack(None, **first, seed=1, force=True)
    assert path.read_bytes() != before


def test_a_file_that_is_no_result_is_not_overwritten(home, tmp_path):
    path = tmp_path / "model.py"
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"model\.py exists already"):
        attack_command.attack(None, **_named(home), suite="fgsm", count=5, out=path, show_progress=False)
    assert path.read_text() == "mine"


def test_the_name_of_a_long_suite_is_short_enough():
    names = {attack_command.file_name(",".join(["pgd:100"] * count), "linf:0.1", 10) for count in (60, 61)}
    assert len(names) == 2
    assert max(map(len, names)) < 200


def test_a_model_at_chance_is_recognised():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    torch.nn.init.zeros_(model[1].weight)
    test = load(config.component("data", "digits")).test
    images, labels = as_float(test.images[:60]), test.labels[:60]
    assert not attack_command.above_chance(robust_accuracy(model, images, labels, "linf:0.1", "uniform"))
    assert attack_command.above_chance(robust_accuracy(model, images, labels * 0, "linf:0.1", "uniform"))
    assert attack_command.above_chance(robust_accuracy(model, images[:5], labels[:5], "linf:0.1", "uniform"))


@pytest.mark.parametrize("text", ["1%", "±1%", " 1 % ", "0.01", "±0.01", "+-0.01", "± 1%"])
def test_a_half_width_can_be_written_in_several_ways(text):
    assert attack_command.parse_share(text) == 0.01


@pytest.mark.parametrize("text", ["", "%", "1", "0", "0%", "100%", "-1%", "1%%", "1%1", "one", "nan", "inf%"])
def test_other_half_widths_are_refused(text):
    with pytest.raises(ConfigError, match="written 1% or 0.01"):
        attack_command.parse_share(text)


def test_a_suite_is_a_name_or_several():
    assert attack_command.parse_suite("standard") == "standard"
    assert attack_command.parse_suite("fgsm, pgd:100") == ["fgsm", "pgd:100"]


def test_the_board_shows_each_attack_with_its_interval():
    board = attack_command.Board("net")
    board.tell(Snapshot(50, 200, "fgsm", 80, 100))
    board.tell(Snapshot(100, 200, "fgsm", 70, 100))
    board.tell(Snapshot(150, 200, "pgd", 50, 100))
    out = Console(file=StringIO(), width=100)
    out.print(board)
    fgsm, pgd, bar = out.file.getvalue().splitlines()
    assert fgsm.split() == ["fgsm", "70.00%", "[60.42,", "78.11]", "of", "100"]
    assert pgd.split()[:2] == ["pgd", "50.00%"]
    assert "75%" in bar


def test_merged_shards_are_the_file_of_the_whole_attack(home, witnesses):
    for number in (1, 2):
        path = home / f"part-{number}.safetensors"
        result, _ = in_process(home, shard=f"{number}/2", out=path)
        assert len(result) == 20
    merged = attack_command.merge([home / "part-2.safetensors", home / "part-1.safetensors"], home / "merged")
    whole = RobustResult.load(witnesses)
    assert torch.equal(merged.stage, whole.stage)
    assert torch.equal(merged.adversarial, whole.adversarial)
    assert RobustResult.load(home / "merged").accuracy == whole.accuracy
    with pytest.raises(ConfigError, match="exists already"):
        attack_command.merge([home / "part-2.safetensors", home / "part-1.safetensors"], home / "merged")
    done = isthmus("merge", "part-1.safetensors", "--out", "one", cwd=home)
    assert done.returncode == 2
    assert "1 of 2 shards are missing: 2" in done.stderr


@pytest.mark.parametrize("option", [{"until": "1%"}, {"max_queries": 1000}, {"suite": "fast"}])
def test_a_shard_needs_no_more_than_its_own_images(home, option):
    with pytest.raises(ConfigError, match="shard"):
        in_process(home, shard="1/2", out=home / "never.safetensors", **option)


def in_process(home, **options):
    """What ``LONG`` asks for, in this process."""
    long = {"suite": "fgsm,pgd:400", "threat": "linf:0.03", "count": 40, "batch_size": 20, "seed": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.syspath_prepend(str(home))
        patch.setenv("ISTHMUS_DATA", "")
        return attack_command.attack(
            None,
            model="theirs:build",
            weights=home / "weights.safetensors",
            data="digits",
            show_progress=False,
            **{**long, **options},
        )
