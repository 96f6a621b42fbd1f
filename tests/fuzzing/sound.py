"""What is sound: the files that isthmus itself writes, for tests to damage."""

from __future__ import annotations

from pathlib import Path

from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.threats import parse
from isthmus.audits import attack_file
from isthmus.audits.target import ModelSource, audit_run, target_of
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
    attack_file.attack(target_of(ModelSource(run, count=COUNT)), parse(THREAT), SUITE.split(","), out)
    test = load(Run(run).recipe.data).test
    examples = as_float(test.images[:COUNT]), test.labels[:COUNT]
    robust_accuracy(
        Run(run).load(), *examples, THREAT, SUITE.split(","), options=RunOptions(save_to=run / "begun.safetensors")
    )
    return run
