"""``isthmus attack``."""

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.engine.run_options import Snapshot
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.result import RobustResult
from isthmus.audits import attack_file
from isthmus.cli import app
from isthmus.cli.attack import Board, parse_half_width, parse_suite
from isthmus.core import config
from isthmus.core.errors import ConfigError
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced
from tests.cli.commands import FAST, HELD, LONG, isthmus, named_net, started


def same(a: RobustResult, b: RobustResult) -> bool:
    """Whether two results broke the same examples, with the same adversarial examples, in the same way."""
    columns = ("correct", "broken", "stage", "adversarial", "run", "step", "target_class")
    pairs = [(getattr(a.state, name), getattr(b.state, name)) for name in columns]
    return all(torch.equal(x.nan_to_num(-7), y.nan_to_num(-7)) for x, y in pairs) and a.attacks == b.attacks


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


def test_an_attack_prints_what_the_file_holds(net_home, attacked):
    said = isthmus("attack", *FAST, *LONG, "--out", "again.safetensors", "--jobs", 2, cwd=net_home).stdout
    result = RobustResult.load(net_home / "again.safetensors")
    assert same(result, RobustResult.load(attacked))
    assert result.complete
    assert 0 < result.accuracy < result.clean_accuracy
    interval = f"{100 * result.interval.low:.0f}–{100 * result.interval.high:.0f}"
    assert f"robust accuracy: {100 * result.accuracy:.0f}%, 95% interval {interval}, n = 40, linf:0.03" in said
    assert f"passes: {result.forward_passes + result.backward_passes:,}" in said
    rows = re.findall(r"│ (\w+) +│ +([\d.]+)% │ +(\d+) │ +([\d,]+) │", said)
    assert [row[0] for row in rows] == ["clean", "fgsm", "pgd"]
    assert [float(row[1]) for row in rows] == [round(100 * left) for left in result.by_attack.values()]
    assert sum(int(row[2]) for row in rows) == result.broken.sum()
    assert [int(row[3].replace(",", "")) for row in rows] == list(result.spent)
    assert not list(net_home.glob("*.evaluation.*")), "the checkpoint is gone"


def test_a_killed_attack_goes_on_to_the_same_result(net_home, attacked):
    checkpoint = net_home / "killed.evaluation.safetensors"
    with held_in_pgd(net_home, checkpoint, "attack", *HELD, *LONG, "--out", "killed.safetensors") as process:
        process.kill()
        process.communicate()
    assert not (net_home / "killed.safetensors").exists()
    other = isthmus("attack", *HELD, *LONG, "--seed", 4, "--out", "killed.safetensors", cwd=net_home)
    assert other.returncode == 2
    assert "holds an evaluation with other" in other.stderr
    done = isthmus("attack", *HELD, *LONG, "--out", "killed.safetensors", cwd=net_home)
    assert done.returncode == 0, done.stderr
    result, whole = RobustResult.load(net_home / "killed.safetensors"), RobustResult.load(attacked)
    assert same(result, whole)
    assert result.spent[1] == whole.spent[1], "fgsm was not gone through again"
    assert result.spent[0] < whole.spent[0] + len(whole), "nor were clean images, but for a few to know the model by"
    assert not checkpoint.exists()


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_leaves_a_valid_result_and_a_way_on(net_home, attacked, jobs):
    command = ("attack", *HELD, *LONG, "--out", f"stopped{jobs}.safetensors", "--jobs", jobs)
    checkpoint = net_home / f"stopped{jobs}.evaluation.safetensors"
    with held_in_pgd(net_home, checkpoint, *command) as process:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        said, errors = process.communicate()
    assert process.returncode == 130, errors
    again = shlex.join(["isthmus", *map(str, command)])
    assert errors.strip() == f"Interrupted. Results so far are kept. To resume: {again}"
    assert "robust accuracy is at most this" in said
    partial, whole = RobustResult.load(net_home / f"stopped{jobs}.safetensors"), RobustResult.load(attacked)
    assert not partial.complete
    assert partial.accuracy >= whole.accuracy
    checked = isthmus("verify", f"stopped{jobs}.safetensors", *FAST, cwd=net_home)
    assert checked.returncode == 0, checked.stderr
    assert "not finished" in checked.stdout
    assert isthmus(*command[:-1], 1, cwd=net_home).returncode == 0  # the number of processes does not matter
    assert same(RobustResult.load(net_home / f"stopped{jobs}.safetensors"), whole)
    assert not checkpoint.exists()


def test_until_stops_early_and_its_examples_are_known_again(net_home):
    options = ("--suite", "fgsm", "--threat", "linf:0.03", "--ci-half-width", "±5%", "--out", "until.safetensors")
    done = isthmus("attack", *FAST, *options, cwd=net_home)
    assert done.returncode == 0, done.stderr
    result = RobustResult.load(net_home / "until.safetensors")
    test = load(config.component("data", "digits")).test
    assert len(result) < len(test)
    assert result.interval.high - result.interval.low <= 0.1
    claim = attack_file.verify(net_home / "until.safetensors", named_net(net_home))
    assert claim.agrees
    assert claim.examples_match


def test_a_budget_of_queries_ends_an_attack_with_an_upper_bound(net_home):
    limited = ("--n", 20, "--suite", "fgsm,pgd:100", "--threat", "linf:0.03", "--max-queries", 700, "--out", "few.st")
    done = isthmus("attack", *FAST, *limited, cwd=net_home)
    assert done.returncode == 5, done.stderr
    assert done.stderr.startswith("about ")
    assert "--max-queries stops at 700" in done.stderr
    assert "the query budget is spent" in done.stdout
    assert "robust accuracy is at most this" in done.stdout
    result = RobustResult.load(net_home / "few.st")
    assert not result.complete
    assert result.forward_passes + result.backward_passes <= 700
    with pytest.raises(ConfigError, match="does not even cover the clean images"):
        attack(net_home, "--n", 20, "--out", net_home / "none.st", "--max-queries", 10)


def attack(home: Path, *options: object) -> None:
    """Run the command in this process, quietly, on the fitted classifier; errors are raised."""
    named_net(home)  # makes its module importable from any folder
    given = ("--model", "net:build", "--weights", home / "weights.safetensors", "--data", "digits", "--quiet")
    assert app.run(["attack", *map(str, (*given, *options))], debug=True) == 0


def test_the_default_place_is_the_models_folder(net_home, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    attack(net_home, "--suite", "fgsm", "--n", 20)
    result = RobustResult.load(Path("runs/net.build-weights/attack-fgsm-linf-0.1-n20.safetensors"))
    indices = balanced(load(config.component("data", "digits")).test.labels)[:20]
    test = load(config.component("data", "digits")).test.select(indices)
    assert torch.equal(result.examples.images, as_float(test.images))


def test_a_finished_evaluation_is_not_overwritten_by_a_quicker_one(net_home, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    first = {"--n": 10, "--suite": "fgsm,pgd:2", "--threat": "linf:8/255"}
    folder = Path("runs/net.build-weights")
    names = {"attack-fgsm+pgd-2-linf-8_255-n10.safetensors"}
    attack(net_home, *flat(first))
    assert {path.name for path in folder.iterdir()} == names
    for other in ({"--suite": "fgsm"}, {"--threat": "linf:0.2"}, {"--n": 11}):
        attack(net_home, *flat(first | other))
    assert len(list(folder.iterdir())) == 4
    path = folder / names.pop()
    before = path.read_bytes()
    for out in ((), ("--out", path)):
        with pytest.raises(ConfigError, match=f"{re.escape(str(path))} exists already.*--out.*--force"):
            attack(net_home, *flat(first), "--seed", 1, *out)
    assert path.read_bytes() == before
    attack(net_home, *flat(first), "--seed", 1, "--force")
    assert path.read_bytes() != before


def flat(options: dict[str, object]) -> list[object]:
    return [each for option in options.items() for each in option]


def test_a_file_that_is_no_result_is_not_overwritten(net_home, tmp_path):
    path = tmp_path / "model.py"
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"model\.py exists already"):
        attack(net_home, "--suite", "fgsm", "--n", 5, "--out", path)
    assert path.read_text() == "mine"


def test_the_name_of_a_long_suite_is_short_enough():
    names = {attack_file.file_name(",".join(["pgd:100"] * count), "linf:0.1", 10) for count in (60, 61)}
    assert len(names) == 2
    assert max(map(len, names)) < 200


def test_a_model_at_chance_is_not_attacked(home):
    done = isthmus(
        "attack", "--model", "theirs:cut", "--data", "digits", "--n", 30, "--out", "cut.safetensors", cwd=home
    )
    assert done.returncode == 2
    assert "theirs.cut is at chance, and no attack was run" in done.stderr
    assert "Nearly all predictions are class" in done.stderr
    assert not (home / "cut.safetensors").exists()


def test_a_model_at_chance_is_recognised():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    torch.nn.init.zeros_(model[1].weight)
    test = load(config.component("data", "digits")).test
    images, labels = as_float(test.images[:60]), test.labels[:60]
    assert not attack_file.above_chance(robust_accuracy(model, images, labels, "linf:0.1", "uniform"))
    assert attack_file.above_chance(robust_accuracy(model, images, labels * 0, "linf:0.1", "uniform"))
    assert attack_file.above_chance(robust_accuracy(model, images[:5], labels[:5], "linf:0.1", "uniform"))


@pytest.mark.parametrize("text", ["1%", "±1%", " 1 % ", "0.01", "±0.01", "+-0.01", "± 1%"])
def test_a_half_width_can_be_written_in_several_ways(text):
    assert parse_half_width(text) == 0.01


@pytest.mark.parametrize("text", ["", "%", "1", "0", "0%", "100%", "-1%", "1%%", "1%1", "one", "nan", "inf%"])
def test_other_half_widths_are_refused(text):
    with pytest.raises(ConfigError, match="written 1% or 0.01"):
        parse_half_width(text)


def test_a_suite_is_a_name_or_several():
    assert parse_suite("standard") == "standard"
    assert parse_suite("fgsm, pgd:100") == ["fgsm", "pgd:100"]


def test_the_board_shows_each_attack_with_its_interval():
    board = Board("net")
    board.update(Snapshot(50, 200, "fgsm", 80, 100))
    board.update(Snapshot(100, 200, "fgsm", 70, 100))
    board.update(Snapshot(150, 200, "pgd", 50, 100))
    out = Console(file=StringIO(), width=100)
    out.print(board)
    fgsm, pgd, bar = out.file.getvalue().splitlines()
    assert fgsm.split() == ["fgsm", "70%", "(60–78)", "of", "100"]
    assert pgd.split()[:2] == ["pgd", "50%"]
    assert "75%" in bar
