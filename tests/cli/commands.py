"""What tests of commands share: a recipe, foreign models, and ways to run a command."""

import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from isthmus.audits.target import ModelSource, NamedModel, named_model
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
    model = trained()
    model.shift = lambda x: x
    return model
"""
NET = """
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
FAST = ("--model", "net:build", *MODEL)
HELD = ("--model", "net:held", *MODEL)  # waits after 100 calls, in the middle of pgd, while there is a file "hold"
LONG = ("--suite", "fgsm,pgd:200", "--threat", "linf:0.03", "--n", 40, "--batch-size", 20, "--seed", 3, "--quiet")


def isthmus(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which has imported torch already, and import the user's modules anew."""
    output, errors, given = StringIO(), StringIO(), list(map(str, arguments))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.chdir(cwd)
        patch.syspath_prepend(cwd)
        for name, value in ({"COLUMNS": "100"} | environment).items():
            patch.setenv(name, value)
        for module in ("theirs", "net"):
            patch.delitem(sys.modules, module, raising=False)
        with pytest.raises(SystemExit) as end:
            app.main(given)
    return subprocess.CompletedProcess(given, end.value.code, output.getvalue(), errors.getvalue())


def isthmus_process(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a separate process, as users do; starting one takes seconds."""
    process = started(*arguments, cwd=cwd, **environment)
    output, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def started(*arguments: object, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """Start a command in a process group of its own."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"} | environment
    command = [sys.executable, "-m", "isthmus", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=cwd, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True, preexec_fn=listen
    )


def listen() -> None:
    """A shell's background jobs ignore SIGINT, and so would what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def named_net(home: Path, *, data: str | None = "digits") -> NamedModel:
    """The fitted linear classifier of the fixture ``net_home``."""
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))
    return named_model(ModelSource(None, "net:build", home / "weights.safetensors", data))
