"""Time of a training step against the deterministic objective on the same backbone, side by side in one run.

    make bench
    python -m benchmarks.training_step [--rounds 30] [--steps 10] [--out results/benchmarks/training-step.json]

A step is what training does for a batch: fetch it, forward, loss and reported terms, backward, optimiser, running
sums. Models of a group take turns, a few steps each, round by round; the figure is the median over rounds of the
ratio to the deterministic model in the same round, with its quartiles, so that a machine that drifts cancels out.
Images are random: their content does not change the work.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from isthmus.core import files, provenance
from isthmus.core.recipe import load_recipe
from isthmus.data.images import ImageData, Split
from isthmus.training.loop import Trainer
from isthmus.training.run import Run

# where the processor computes in it; elsewhere a step would take ten times as long, ratios and all
PRECISION = "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() or torch.cuda.is_available() else "float32"
WIDE_RESNET = {
    "model": {"backbone": {"name": "wide_resnet", "depth": 7, "width": 2}, "dim": 4, "classifier": "mlp"},
    "training": {"batch_size": 128, "precision": PRECISION, "channels_last": True},
}
MLP = {
    "model": {"backbone": {"name": "mlp", "hidden": [1024, 1024]}, "dim": 256},
    "training": {"batch_size": 100, "optimizer": {"lr": 1e-4}},
}
FULL = {"model.covariance": "full"}
GROUPS: dict[str, tuple[dict[str, Any], dict[str, tuple[dict[str, Any], float]]]] = {
    # group: base recipe, and name -> (overrides, ratio not to exceed)
    f"wide_resnet 7x2, batch 128, {PRECISION}": (
        WIDE_RESNET,
        {
            "ceb, full, 4 dims": ({"objective": "ceb", **FULL}, 1.05),
            "vib, full, 4 dims, N(0, I)": ({"objective": "vib", **FULL}, 1.05),
            "ceb, identity, 128 features": ({"objective": "ceb", "model.dim": None}, 1.05),
            "ceb, full, mixture of 240": ({"objective": "ceb", "model.marginal": "mixture", **FULL}, 1.2),
            "vib, full, mixture of 240": ({"objective": "vib", "model.marginal": "mixture", **FULL}, 1.2),
        },
    ),
    f"wide_resnet 7x2, batch 1024, {PRECISION}": (
        {**WIDE_RESNET, "training": {**WIDE_RESNET["training"], "batch_size": 1024}},
        {
            "catgen, full, 4 dims": ({"objective": "catgen", "model.classifier": None, **FULL}, 1.10),
            "catgen, identity, 128 features": (
                {"objective": "catgen", "model.classifier": None, "model.dim": None},
                1.10,
            ),
        },
    ),
    "mlp 1024-1024, batch 100": (
        MLP,
        {"vib, diagonal, 256 dims, 12 samples": ({"objective": "vib", "model.samples": 12}, 1.15)},
    ),
}


def random_data(n: int = 4096) -> ImageData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 1, 28, 28), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(n) % 10)
    return ImageData.of("random", split, split, tuple(str(i) for i in range(10)))


class Stepper:
    """One model's endless training."""

    def __init__(self, base: dict[str, Any], overrides: dict[str, Any], data: ImageData) -> None:
        recipe = load_recipe({"name": "bench", "data": "mnist", "objective": "deterministic", **base}, overrides)
        self.trainer = Trainer(recipe, data, Run(Path("unused")))
        self.batches = iter(())

    def time(self, steps: int) -> float:
        """Seconds a step."""
        start = time.perf_counter()
        for _ in range(steps):
            batch = next(self.batches, None)
            if batch is None:
                self.batches = self.trainer.batches.epoch(self.trainer.step)
                batch = next(self.batches)
            self.trainer._step([batch])
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / steps


def measure(rounds: int, steps: int, only: str = "") -> list[dict[str, Any]]:
    data = random_data()
    rows = []
    for group, (base, cases) in GROUPS.items():
        if only not in group:
            continue
        steppers = {"deterministic": Stepper(base, {}, data)}
        steppers |= {name: Stepper(base, overrides, data) for name, (overrides, _) in cases.items()}
        for stepper in steppers.values():
            stepper.time(steps)
        seconds: dict[str, list[float]] = {name: [] for name in steppers}
        for _ in range(rounds):
            for name, stepper in steppers.items():
                seconds[name].append(stepper.time(steps))
        for name, (_, bar) in cases.items():
            ratios = [a / b for a, b in zip(seconds[name], seconds["deterministic"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            rows.append(
                {
                    "group": group,
                    "case": name,
                    "ratio": middle,
                    "quartiles": [low, high],
                    "bar": bar,
                    "milliseconds": 1e3 * statistics.median(seconds[name]),
                    "deterministic_milliseconds": 1e3 * statistics.median(seconds["deterministic"]),
                }
            )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title="A training step against the deterministic objective")
    for column in ("backbone", "objective", "ms", "deterministic ms", "ratio", "quartiles", "bar"):
        table.add_column(column)
    for row in rows:
        met = "[green]met[/green]" if row["ratio"] <= row["bar"] else "[red]missed[/red]"
        low, high = row["quartiles"]
        table.add_row(
            row["group"],
            row["case"],
            f"{row['milliseconds']:.1f}",
            f"{row['deterministic_milliseconds']:.1f}",
            f"{row['ratio']:.3f}",
            f"{low:.3f}-{high:.3f}",
            f"{row['bar']:.2f} {met}",
        )
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path, default=None, help="write the table as JSON")
    parser.add_argument("--only", default="", help="only groups whose name holds this")
    given = parser.parse_args()
    rows = measure(given.rounds, given.steps, given.only)
    show(rows)
    if given.out is not None:
        command = f"python -m benchmarks.training_step --rounds {given.rounds} --steps {given.steps}"
        command += f" --only '{given.only}'" if given.only else ""
        content = {"command": command, "rounds": given.rounds, "steps": given.steps, "rows": rows}
        files.write_json(given.out, content | {"provenance": provenance.collect()})


if __name__ == "__main__":
    main()
