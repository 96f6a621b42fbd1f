"""What a bound attack costs beside a loop written by hand: PGD of 10 steps on a batch of 128, in a training loop.

    python -m benchmarks.bound_attack [--rounds 100] [--out results/benchmarks/bound-attack.json]

Both attack the same images with the same step size from a random start, and both take only the images' gradient, which
the loop by hand does with ``torch.autograd.grad``. They take turns, one batch each; the figure is the median over
rounds of the ratio in the same round, with its quartiles, so that a machine that drifts cancels out. On a CPU, time is
that of the processor. torchattacks' PGD is measured beside them, where it is installed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import peers
from isthmus.attacks import PGD
from isthmus.core import files, provenance

STEPS, EPS, STEP_SIZE, BATCH, BAR = 10, 8 / 255, 2 / 255, 128, 1.1

Attack = Callable[[Tensor, Tensor], Tensor]


def small_cnn() -> nn.Sequential:
    """Three convolutions with batch norm, 3×32×32 to 10 classes, in train mode."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, stride=2), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10))


def by_hand(model: nn.Module) -> Attack:
    """Madry et al. 2018 in a dozen lines."""

    def attack(images: Tensor, labels: Tensor) -> Tensor:
        model.eval()
        x = (images + torch.empty_like(images).uniform_(-EPS, EPS)).clamp(0, 1)
        for _ in range(STEPS):
            x.requires_grad_()
            loss = functional.cross_entropy(model(x), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
            moved = x.detach() + STEP_SIZE * gradient.sign()
            x = (images + (moved - images).clamp(-EPS, EPS)).clamp(0, 1)
        model.train()
        return x

    return attack


def attacks(model: nn.Module) -> dict[str, Attack]:
    """The attacks that take turns, by name."""
    chosen: dict[str, Attack] = {
        "by hand": by_hand(model),
        "isthmus": PGD(steps=STEPS, step_size=STEP_SIZE).bind(model, EPS),
    }
    if find_spec("torchattacks") is not None:
        chosen["torchattacks"] = peers.torchattacks().PGD(model, eps=EPS, alpha=STEP_SIZE, steps=STEPS)
    return chosen


def measure(rounds: int) -> list[dict[str, Any]]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clock = time.perf_counter if device == "cuda" else time.process_time  # CPU time: other work does not disturb it
    torch.manual_seed(0)
    model = small_cnn().to(device)
    images, labels = torch.rand(BATCH, 3, 32, 32, device=device), torch.arange(BATCH, device=device) % 10
    chosen = attacks(model)
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for number in range(rounds + 2):
        for name, attack in chosen.items():
            start = clock()
            attack(images, labels)
            if device == "cuda":
                torch.cuda.synchronize()
            if number >= 2:  # the first two warm up
                seconds[name].append(clock() - start)
    rows = []
    for name, found in seconds.items():
        ratios = [a / b for a, b in zip(found, seconds["by hand"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        milliseconds = 1e3 * statistics.median(found)
        rows.append({"attack": name, "milliseconds": milliseconds, "ratio": middle, "quartiles": [low, high]})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"PGD of {STEPS} steps on a batch of {BATCH}; the bar of isthmus is {BAR}")
    for column in ("attack", "ms a batch", "ratio to the loop by hand", "quartiles"):
        table.add_column(column)
    for row in rows:
        low, high = row["quartiles"]
        table.add_row(row["attack"], f"{row['milliseconds']:.1f}", f"{row['ratio']:.3f}", f"{low:.3f}-{high:.3f}")
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--out", type=Path, default=None, help="write the table as JSON")
    given = parser.parse_args()
    rows = measure(given.rounds)
    show(rows)
    if given.out is not None:
        command = f"python -m benchmarks.bound_attack --rounds {given.rounds}"
        threads = torch.get_num_threads()
        content = {"command": command, "threads": threads, "rounds": given.rounds, "bar": BAR, "rows": rows}
        files.write_json(given.out, content | {"provenance": provenance.collect()})


if __name__ == "__main__":
    main()
