"""What watching the gradients' signal-to-noise ratio adds to a training step, side by side in one run.

    python -m benchmarks.gradient_snr [--rounds 200] [--out results/benchmarks/gradient-snr.json]

The MLP of figure 2 (784-512-256-128-64-32-2, batch 100), the CNN of the tables (batch 128) and a Wide ResNet 7×2
(batch 256) on images of MNIST's shape, each with and without the observer; they take turns, a step each, round by
round. A figure is the median over rounds of the ratio within a round, with its quartiles; on one thread in processor
time. The bar: 5% of a step.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.hypothesis import clock, in_turns
from benchmarks.training_step import Stepper, random_data
from isthmus.core import files, provenance

BAR = 1.05
SGD = {"name": "sgd", "lr": 1e-3, "momentum": 0}
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "MLP": ({"backbone": {"name": "mlp", "hidden": [512, 256, 128, 64, 32]}}, 100),
    "basic CNN": ({"backbone": {"name": "basic_cnn"}}, 128),
    "Wide ResNet 7x2": ({"backbone": {"name": "wide_resnet", "depth": 7, "width": 2, "norm": False}}, 256),
}


def steppers(model: dict[str, Any], batch: int) -> dict[str, Stepper]:
    data = random_data(16 * batch)
    return {
        name: Stepper(
            {
                "model": model,
                "objective": "deterministic",
                "training": {"batch_size": batch, "optimizer": SGD, "callbacks": observe},
            },
            {},
            data,
        )
        for name, observe in (("plain", []), ("watched", ["gradient_snr"]))
    }


def measure(rounds: int) -> list[dict[str, Any]]:
    rows = []
    for name, case in CASES.items():
        pair = steppers(*case)
        for stepper in pair.values():
            stepper.trainer.model.train()
        found = in_turns(rounds, {which: lambda stepper=stepper: stepper.time(1) for which, stepper in pair.items()})
        ratios = [watched / plain for watched, plain in zip(found["watched"], found["plain"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows.append(
            {
                "case": name,
                "plain_ms": statistics.median(found["plain"]),
                "ratio": middle,
                "quartiles": [low, high],
                "bar": f"at most {BAR}",
                "met": middle <= BAR,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(arguments.rounds)
    table = Table(title=f"A step with gradient_snr, {clock()[0]}", title_justify="left")
    for heading in ("network", "plain step", "ratio", "quartiles", "bar"):
        table.add_column(heading)
    for row in rows:
        low, high = row["quartiles"]
        said = f"{row['bar']}, {'met' if row['met'] else 'missed'}"
        table.add_row(row["case"], f"{row['plain_ms']:.1f} ms", f"{row['ratio']:.3f}", f"{low:.3f} to {high:.3f}", said)
    Console().print(table)
    if arguments.out is not None:
        kept = {"rounds": arguments.rounds, "clock": clock()[0], "rows": rows, "provenance": provenance.collect()}
        files.write_json(arguments.out, kept)


if __name__ == "__main__":
    main()
