"""Workers: what several processes find is what one would, and whatever ends them, nothing is lost or left over."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.attacks.attacked_models import Noisy, Smooth, proposing, subject
from tests.attacks.sent_models import Cut

from isthmus.attacks import Linf, curve, robust_accuracy
from isthmus.attacks.api import ready
from isthmus.attacks.engine import workers
from isthmus.attacks.engine.context import EvaluationContext
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.evaluation import Evaluation, RunOptions, work
from isthmus.attacks.engine.inputs import examples
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.engine.verifier import Verifier
from isthmus.attacks.result import RobustResult
from isthmus.core.errors import ConfigError, ModelError

SUITE = ["fgsm", {"name": "pgd", "restarts": 3, "steps": 12}]


def same(a: RobustResult, b: RobustResult) -> bool:
    """Whether two results are one another's equal: witnesses, passes of each example, and all."""
    ours, theirs = a.state.columns(), b.state.columns()
    if a.random:  # who is confirmed together shares what that costs; only the sum is exact
        del ours["forwards"]
    equal = [torch.equal(x.nan_to_num(-7), theirs[name].nan_to_num(-7)) for name, x in ours.items()]
    totals = [(r.forward_passes, r.backward_passes, r.spent, r.attacks, r.complete) for r in (a, b)]
    return all(equal) and totals[0] == totals[1]


@pytest.mark.parametrize("kind", ["untargeted", "targeted", "random"])
def test_two_workers_find_what_one_process_finds(kind):
    model, images, labels = subject(49)
    targets = (labels + 1) % 3 if kind == "targeted" else None
    attacked = Noisy(model, 0.05) if kind == "random" else model
    alone, shared = (
        robust_accuracy(attacked, images, labels, Linf(0.03), SUITE, 16, seed=5, jobs=jobs, targets=targets)
        for jobs in (1, 2)
    )
    assert 0 < alone.accuracy < alone.clean_accuracy or kind == "targeted"
    assert same(alone, shared)


def test_one_crew_serves_all_attacks_and_a_whole_curve(monkeypatch):
    from isthmus.attacks.engine import processes

    crews = []
    init = processes.Processes.__init__
    monkeypatch.setattr(
        processes.Processes, "__init__", lambda self, *given: (crews.append(self), init(self, *given))[1]
    )
    model, images, labels = subject(24)
    grid = [Linf(0.01), Linf(0.03)]
    shared = curve(model, images, labels, grid, SUITE, jobs=2)
    assert all(same(*pair) for pair in zip(curve(model, images, labels, grid, SUITE), shared, strict=True))
    assert len(crews) == 1
    assert not crews[0]._workers, "they are gone"


class Hand:
    """A crew that works in this very process: what another kind of crew has to do, and no more."""

    def __init__(self) -> None:
        self.orders, self.closed = [], False

    def send(self, orders):
        self.orders = list(enumerate(orders))

    def gather(self, seconds):
        number, order = self.orders.pop()
        counted_model, rows = CountedModel(Smooth()), torch.arange(len(order.state))
        here = EvaluationContext(
            Verifier(counted_model, order.threat), order.examples, order.state, torch.device("cpu"), order.size
        )
        for _ in work(here, order.attack, rows, order.stage):
            pass
        return [
            (number, workers.Part(rows, order.state, counted_model.forward_passes, counted_model.backward_passes, True))
        ]

    def close(self):
        self.closed = True


def test_any_crew_will_do():
    model, images, labels = subject(30)
    batch, attacks = examples(images, labels), ready(SUITE)
    evaluation = Evaluation(model, batch, Linf(0.03), attacks, 0, RunOptions(None, jobs=3), None)
    evaluation.pool = crew = Hand()
    evaluation.init(None)
    evaluation.run()
    assert same(evaluation.result(), robust_accuracy(model, images, labels, Linf(0.03), SUITE))
    workers.close(evaluation)
    assert crew.closed


class Unpicklable(Smooth):
    def __init__(self) -> None:
        super().__init__()
        self.shift = lambda x: x

    def forward(self, images):
        return super().forward(self.shift(images))


class Hidden(Smooth):
    """In a module that a worker cannot import, as a class that was typed into a notebook is."""

    __module__ = "a_notebook"


sys.modules["a_notebook"] = sys.modules[__name__]


def test_what_cannot_be_sent_is_said_with_the_way_out():
    model, images, labels = subject(12)
    with pytest.raises(ConfigError, match=r"model cannot be sent .*cannot be pickled \(.*lambda.*\); use jobs=1"):
        robust_accuracy(Unpicklable(), images, labels, Linf(0.1), ["fgsm"], jobs=2)
    with pytest.raises(ConfigError, match=r"cannot unpickle the model \(ModuleNotFoundError.*or use jobs=1"):
        robust_accuracy(Hidden(), images, labels, Linf(0.1), ["fgsm"], jobs=2)
    local = proposing(lambda batch, threat: batch.images)
    with pytest.raises(ConfigError, match=r"attack 'test' cannot be sent"):
        robust_accuracy(model, images, labels, Linf(0.1), [local], jobs=2)


def test_a_choice_of_examples_may_be_a_closure():
    model, images, labels = subject(24)
    chosen = torch.arange(24) < 12
    (attack,) = ready("fgsm")
    some = replace(attack, among=lambda state, keys: chosen)
    result = robust_accuracy(model, images, labels, Linf(0.1), [some], jobs=2)
    assert not (result.broken & ~chosen & result.correct).any()
    assert (result.broken & chosen & result.correct).any()


SCRIPT = '''
import os, sys, time
import torch
from torch import nn
from tests.attacks.attacked_models import Smooth, subject
from isthmus.attacks import Linf, robust_accuracy

HOME = os.getpid() if __name__ == "__main__" else None


class Slow(Smooth):
    """Smooth, but every look takes its time; from a certain one on, a worker comes to grief."""

    def __init__(self, grief=None):
        super().__init__()
        self.grief, self.looks, self.home = grief, 0, os.getpid()

    def forward(self, images):
        self.looks += os.getpid() != self.home
        if self.grief == "hangs" and self.looks > 5:
            time.sleep(600)
        if self.grief == "dies" and self.looks > 30:
            os.kill(os.getpid(), 9)
        if self.grief == "fails" and self.looks > 5:
            raise ValueError("no more")
        time.sleep(0.01 if self.looks else 0)
        return super().forward(images)


def main(grief, *rest):
    torch.set_num_threads(1)
    _, images, labels = subject(24)
    suite = [{"name": "pgd", "restarts": 50, "steps": 20}]
    tell = lambda at: print("at", at.done, flush=True)
    return robust_accuracy(
        Slow(grief), images, labels, Linf(0.02), suite, 12, jobs=2, save_to="kept.safetensors", progress=tell
    )


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BaseException as error:
        result = getattr(error, "result", None)
        if result is not None:
            result.save("partial.safetensors")
        print(type(error).__name__, error, flush=True)
'''


def script(folder: Path, *arguments: str) -> subprocess.Popen:
    (folder / "script.py").write_text(SCRIPT)
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "script.py", *arguments],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background jobs ignore
    )


def nobody_left(session: int) -> bool:
    """True once every process of a session is gone."""
    while any(_session_of(path) == session for path in Path("/proc").glob("[0-9]*/stat")):
        time.sleep(0.1)
    return True


def _session_of(path: Path) -> int:
    try:
        state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return -1
    return -1 if state == "Z" else int(session)


@pytest.mark.parametrize(
    ("grief", "words"),
    [
        ("dies", r"ModelError A worker process was killed by signal 9 \(SIGKILL\)"),
        ("fails", r"ModelError The model fails on .*: no more"),
    ],
)
def test_a_worker_that_comes_to_grief_is_told_of_and_nothing_is_lost(tmp_path, grief, words):
    process = script(tmp_path, grief)
    said, errors = process.communicate()
    assert re.search(words, said), said + errors
    assert errors == ""
    state, _ = EvaluationState.load(tmp_path / "kept.safetensors")
    assert state.ranked.shape == (24, 2)
    assert nobody_left(process.pid)


def _until(process: subprocess.Popen, seen: int) -> None:
    for _ in range(seen):
        assert process.stdout.readline().startswith("at"), process.stderr.read()


def test_ctrl_c_reaches_the_parent_alone_and_gives_a_valid_result(tmp_path):
    process = script(tmp_path, "hangs")
    _until(process, 3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    said, errors = process.communicate()
    assert said.splitlines()[-1].startswith("Interrupted ")
    assert errors == ""
    result = RobustResult.load(tmp_path / "partial.safetensors")
    assert not result.complete
    assert (tmp_path / "kept.safetensors").exists()
    assert nobody_left(process.pid)


def test_workers_go_when_their_parent_is_killed(tmp_path):
    process = script(tmp_path, "nothing")
    _until(process, 8)
    process.kill()
    process.communicate()
    assert nobody_left(process.pid)


def test_a_script_without_a_guard_is_told_to_have_one(tmp_path):
    (tmp_path / "bare.py").write_text(
        "from attacked_models import subject\nfrom isthmus.attacks import robust_accuracy\n"
        "robust_accuracy(*subject(8), 'linf:0.1', ['fgsm'], jobs=2)\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "bare.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr.splitlines()[-1]


def test_a_missing_gradient_in_a_worker_is_the_error_that_one_process_gives():
    _, images, labels = subject(12)
    said = []
    for jobs in (1, 2):
        with pytest.raises(ModelError) as caught:
            robust_accuracy(Cut(), images, labels, Linf(0.1), ["fgsm"], jobs=jobs)
        said.append(str(caught.value))
    assert said[0] == said[1]
