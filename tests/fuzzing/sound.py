"""What is sound: the files that isthmus itself writes, for tests to damage."""

from __future__ import annotations

from pathlib import Path

from isthmus.attacks.api import robust_accuracy
from isthmus.audits import attack_command
from isthmus.audits.target import ModelSource, audit_run
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.training.run import Run
from isthmus.training.start import train

RECIPE = {
    "name": "sound",
    "data": {"name": "digits", "train_limit": 60, "test_limit": 20},
    "model": {"backbone": {"name": "mlp", "hidden": [8]}, "dim": 2},
    "objective": {"name": "ceb", "rho": 1.0},
    "training": {"epochs": 2, "batch_size": 30, "log_every": 1, "checkpoint_every": 1, "ema": 0.9},
}
THREAT, SUITE, COUNT = "linf:0.3", "fgsm,pgd:3", 10


def make(run: Path) -> Path:
    """A trained run with its checkpoint, an audit of it, witnesses, and an evaluation as a killed attack leaves it."""
    train(RECIPE, out=run, progress=False)
    audit_run(ModelSource(run, count=COUNT), THREAT, ["accuracy", "calibration", "information"])
    out = run / "witnesses.safetensors"
    attack_command.attack(run, threat=THREAT, suite=SUITE, count=COUNT, out=out, show_progress=False)
    test = load(Run(run).recipe.data).test
    examples = as_float(test.images[:COUNT]), test.labels[:COUNT]
    robust_accuracy(Run(run).load(), *examples, THREAT, SUITE.split(","), save_to=run / "begun.safetensors")
    return run
