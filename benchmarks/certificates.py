"""Certified accuracy and time of the bounds, on MNIST with two convolutions and two linear layers.

    python -m benchmarks.certificates train adversarial      # minutes
    python -m benchmarks.certificates measure adversarial

The networks are adversarially trained (PGD of 7 steps) at ℓ∞ 0.1, and trained by IBP. Times are per image, of one
method alone on images that no attack broke, in processor time of one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from datetime import date
from pathlib import Path

import torch
from torch import nn

import isthmus
from isthmus.certificates import CertifyOptions
from isthmus.data.images import as_float
from isthmus.data.loading import load

ROOT = Path(__file__).parent.parent
THREAT = "linf:0.1"
RECIPE = {
    "data": "mnist",
    "objective": "deterministic",
    "seed": 0,
    "model": {"normalize": "none"},
    "training": {"epochs": 3, "batch_size": 128, "optimizer": {"lr": 1e-3}},
}
WAYS = {"adversarial": {"training.adversarial": "pgd:7 linf:0.1"}}


def backbone() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 100),
        nn.ReLU(),
    )


def train(way: str, runs: Path) -> None:
    run = isthmus.train({"name": f"mnist-{way}", **RECIPE}, WAYS[way], out=runs / way, backbone=backbone())
    print(json.dumps(run.info()["result"]))


def measure(way: str, runs: Path, n: int) -> dict[str, object]:
    torch.set_num_threads(1)
    model = isthmus.Run(runs / way).load(backbone=backbone()).eval()
    split = load("mnist").test
    images, labels = as_float(split.images[:n]), split.labels[:n]
    attacked = isthmus.robust_accuracy(model, images, labels, THREAT, "fast")
    found: dict[str, object] = {"network": way, "n": n, "threat": THREAT, "date": str(date.today())}
    found |= {"machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread", "torch": torch.__version__}
    found |= {"clean_accuracy": attacked.clean_accuracy, "upper": attacked.accuracy}
    for methods in (("ibp",), ("crown-ibp",), ("crown",), ("crown", "alpha-crown")):
        began = time.process_time()
        result = isthmus.certify(model, attacked, options=CertifyOptions(methods=methods, progress=False))
        spent = (time.process_time() - began) / int(attacked.robust.sum())
        lower = result.lower
        found[methods[-1]] = {
            "certified": lower.value,
            "low": lower.interval.low if lower.interval else None,
            "high": lower.interval.high if lower.interval else None,
            "milliseconds_per_image": round(1000 * spent, 2),
        }
        print(methods, found[methods[-1]], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["train", "measure"])
    parser.add_argument("way", choices=list(WAYS))
    parser.add_argument("--runs", type=Path, default=Path("runs/certificates"))
    parser.add_argument("--n", type=int, default=500)
    given = parser.parse_args()
    if given.action == "train":
        train(given.way, given.runs)
        return
    out = ROOT / "results" / "benchmarks" / f"certificates-{given.way}.json"
    out.write_text(json.dumps(measure(given.way, given.runs, given.n), indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
