"""What guessing first costs: "Guess First"'s classifiers against its plain CNN, side by side in one run.

    python -m benchmarks.hypothesis [--rounds 40] [--out results/benchmarks/hypothesis.json]

Models of the paper's sizes on images of MNIST's shape, batch 250, float32. They take turns, a step each, round by
round; a figure is the median over rounds of the ratio within a round, with its quartiles, so that a machine that drifts
cancels out. On one thread of a CPU the time is what the process itself gets of it, so that other work counts less.
Images are random: their content does not change the work.

Memory is what inference adds to the peak of a process of its own, with the hypothesis at the last hidden layer (128
units on the CNN's 256) and 100 or 1,000 labels; beside it the same with all labels at once.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.training_step import Stepper, random_data
from isthmus.core import files, provenance
from isthmus.core.recipe import load_recipe
from isthmus.models import factory, hypothesis

BATCH = 250
CNN: dict[str, Any] = {"model": {"backbone": {"name": "strided_conv"}}, "objective": "deterministic"}
CONDITIONED = {"backbone": {"name": "strided_conv", "hidden": []}, "hypothesis": {"hidden": [512, 256, 128]}}
C_DV: dict[str, Any] = {"model": CONDITIONED, "objective": "donsker_varadhan"}
C_DV_IE: dict[str, Any] = {"model": CONDITIONED, "objective": {"name": "donsker_varadhan", "rho": 0}}
LAST_LAYER: dict[str, Any] = {
    "model": {"backbone": {"name": "strided_conv", "hidden": [512, 256]}, "hypothesis": {"hidden": [128]}},
    "objective": "donsker_varadhan",
}
INFERENCE, TRAINING = "inference", "training step"
BARS = (
    # what, case, of which, a bar, and whether the ratio may not exceed it or must reach it
    (INFERENCE, "C-DV", "CNN", 1.5, "at most"),
    (INFERENCE, "C-DV, naive concatenation", "C-DV", 3.5, "at least"),
    (INFERENCE, "C-DV, naive concatenation", "CNN", None, ""),
    (TRAINING, "C-DV", "CNN", 1.8, "at most"),
    (TRAINING, "C-DV-IE", "CNN", 3.0, "at most"),
)
LABELS = (100, 1000)
MEMORY = ("in pieces", "all labels at once")


def clock() -> tuple[str, Callable[[], float]]:
    if device() == "cpu" and torch.get_num_threads() == 1:
        return "CPU time", time.process_time
    return "wall-clock time", time.perf_counter


def build(given: Mapping[str, Any], num_classes: int = 10) -> torch.nn.Module:
    model = factory.build(load_recipe({"name": "bench", "data": "mnist", **given}), (1, 28, 28), num_classes)
    return model.to(device()).eval()


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def naive(model: Any, images: Tensor) -> Tensor:
    """Concatenate every label to the features of every image, and run all conditioned layers on all of these rows."""
    features = model.features(images)
    n, classes = len(features), model.injection.num_classes
    labels = torch.eye(classes, device=features.device)[:, None].expand(-1, n, -1)
    rows = torch.cat([features.expand(classes, -1, -1), labels], 2).flatten(0, 1)
    scores: Tensor = model.trunk(model.injection.layer(rows))
    return scores.reshape(classes, n).T


@torch.inference_mode()
def inference(rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round's pass over a batch."""
    torch.manual_seed(0)
    images = torch.rand(BATCH, 1, 28, 28, device=device())
    cnn, conditioned = build(CNN), build(C_DV)
    torch.testing.assert_close(conditioned(images), naive(conditioned, images), atol=1e-5, rtol=1e-5)
    return in_turns(
        rounds,
        {
            "CNN": lambda: cnn(images),
            "C-DV": lambda: conditioned(images),
            "C-DV, naive concatenation": lambda: naive(conditioned, images),
        },
    )


def training(rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round's training step: a batch, forward, terms, backward, optimiser, running sums."""
    data, settings = random_data(16 * BATCH), {"training": {"batch_size": BATCH}}
    steppers = {
        name: Stepper({**given, **settings}, {}, data)
        for name, given in (("CNN", CNN), ("C-DV", C_DV), ("C-DV-IE", C_DV_IE))
    }
    for stepper in steppers.values():
        stepper.trainer.model.train()
    return in_turns(rounds, {name: lambda stepper=stepper: stepper.time(1) for name, stepper in steppers.items()})


def in_turns(rounds: int, cases: Mapping[str, Callable[[], Any]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in cases}
    now = clock()[1]
    for number in range(rounds + 2):
        for name, look in cases.items():
            start = now()
            look()
            if device() == "cuda":
                torch.cuda.synchronize()
            if number > 1:  # the first rounds warm caches and allocators
                found[name].append(1e3 * (now() - start))
    return found


def ratios(rounds: int) -> list[dict[str, Any]]:
    measured = {INFERENCE: inference(rounds), TRAINING: training(rounds)}
    rows = []
    for what, case, reference, bar, sense in BARS:
        ours, theirs = measured[what][case], measured[what][reference]
        low, middle, high = statistics.quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=4)
        rows.append(
            {
                "what": what,
                "case": case,
                "against": reference,
                "ratio": middle,
                "quartiles": [low, high],
                "bar": None if bar is None else f"{sense} {bar}",
                "met": None if bar is None else middle <= bar if sense == "at most" else middle >= bar,
                "milliseconds": statistics.median(ours),
                "reference_milliseconds": statistics.median(theirs),
            }
        )
    return rows


def peak() -> float:
    """Peak resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.inference_mode()
def added(case: str, labels: int) -> float:
    """MiB that a batch adds; a batch of two images before it pays for what comes once."""
    if case == MEMORY[1]:
        hypothesis.NUMBERS = 2**62
    model = build(LAST_LAYER, labels)
    model(torch.rand(2, 1, 28, 28))
    images = torch.rand(BATCH, 1, 28, 28)
    model.features(images)  # as large for any number of labels
    before = peak()
    model(images)
    return peak() - before


def memory() -> list[dict[str, Any]]:
    rows = []
    for case in MEMORY:
        mib = []
        for labels in LABELS:
            command = [sys.executable, "-m", "benchmarks.hypothesis", "--one", case, str(labels)]
            mib.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        rows.append({"case": case, "labels": LABELS, "mib": mib, "growth": mib[1] / max(mib[0], 1.0)})
    return rows


def show(rows: list[dict[str, Any]], memory_rows: list[dict[str, Any]]) -> None:
    where = f"{torch.get_num_threads()} thread(s), {clock()[0]}" if device() == "cpu" else torch.cuda.get_device_name()
    table = Table(title=f"Guessing first, batch {BATCH}, float32, {where}")
    for column in ("", "case", "ms", "against", "ms", "ratio", "quartiles", "bar"):
        table.add_column(column)
    for row in rows:
        met = "" if row["met"] is None else " [green]met[/green]" if row["met"] else " [red]missed[/red]"
        table.add_row(
            row["what"],
            row["case"],
            f"{row['milliseconds']:.1f}",
            row["against"],
            f"{row['reference_milliseconds']:.1f}",
            f"{row['ratio']:.2f}",
            "{:.2f}-{:.2f}".format(*row["quartiles"]),
            f"{row['bar'] or ''}{met}",
        )
    console = Console(width=140)
    console.print(table)
    for row in memory_rows:
        small, large = row["mib"]
        console.print(
            f"inference at the last hidden layer, {row['case']}: {small:.0f} MiB for {LABELS[0]} labels, {large:.0f} "
            f"for {LABELS[1]:,}: {row['growth']:.1f} times"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path, default=None, help="write the numbers as JSON")
    parser.add_argument("--one", nargs=2, metavar=("CASE", "LABELS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(added(given.one[0], int(given.one[1])))
        return
    memory_rows, rows = memory(), ratios(given.rounds)
    show(rows, memory_rows)
    if given.out is not None:
        content = {
            "command": f"python -m benchmarks.hypothesis --rounds {given.rounds}",
            "rounds": given.rounds,
            "threads": torch.get_num_threads(),
            "clock": clock()[0],
            "rows": rows,
            "memory": memory_rows,
        }
        files.write_json(given.out, content | {"provenance": provenance.collect()})


if __name__ == "__main__":
    main()
