"""All 15 corruptions at 5 severities of 1,000 CIFAR-10 images, beside the passes of the model that an audit asks.

    python -m benchmarks.corruptions [--frost FOLDER] [--threads 2] [--out results/benchmarks/corruptions.json]

Needs ISTHMUS_DATA. The bar is 60 s on two cores. Time on a shared machine is mostly waiting, so the process's CPU time
stands beside it. The model's passes are timed on a few batches and counted up to all 75,000 images.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from isthmus.core import files, provenance
from isthmus.core.randomness import example_keys
from isthmus.data.corruptions import weather
from isthmus.data.corruptions.apply import corrupt
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.metrics import CORRUPTIONS, SEVERITIES
from isthmus.models.backbones import WideResNet

IMAGES, BAR, PASSES, BATCH = 1000, 60.0, 3, 100
MODELS = ((16, 4), (28, 10))  # depth and width of the wide ResNets


class Clock:
    """Seconds on the wall and of the process's CPUs."""

    def __enter__(self) -> Clock:
        self.began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self.began[0], time.process_time() - self.began[1]


def corruptions(images: torch.Tensor, frost: Path | None) -> list[dict[str, Any]]:
    photographs = None if frost is None else weather.load_frost(frost, 3, shrunk=True)
    keys, rows = example_keys(0, torch.arange(len(images))), []
    for name in CORRUPTIONS:
        if name == "frost" and photographs is None:
            continue
        with Clock() as clock:
            for severity in SEVERITIES:
                corrupt(images, name, severity, keys, frost=photographs)
        rows.append({"corruption": name, "seconds": clock.wall, "cpu_seconds": clock.cpu})
    return rows


def passes(images: torch.Tensor, models: Sequence[tuple[int, int]] = MODELS) -> list[dict[str, Any]]:
    rows = []
    batch = as_float(images[:BATCH])
    for depth, width in models:
        model = WideResNet(depth=depth, width=width).build((3, 32, 32)).eval()
        with torch.no_grad():
            model(batch[:8])
            with Clock() as clock:
                for _ in range(PASSES):
                    model(batch)
        share = IMAGES * len(CORRUPTIONS) * len(SEVERITIES) / (PASSES * BATCH)
        rows.append({"model": f"{depth}×{width}", "seconds": clock.wall * share, "cpu_seconds": clock.cpu * share})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frost", type=Path, default=weather.frost_folder())
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None, help="write the numbers as JSON")
    given = parser.parse_args()
    if not os.environ.get("ISTHMUS_DATA"):
        print("corruptions: skipped, since ISTHMUS_DATA names no mirror of CIFAR-10")
        return
    torch.set_num_threads(given.threads)
    images = load("cifar10").test.images[:IMAGES]
    ours, models = corruptions(images, given.frost), passes(images)
    total = {key: sum(row[key] for row in ours) for key in ("seconds", "cpu_seconds")}
    for row in ours:
        print(f"{row['corruption']:18s} {row['seconds']:6.2f} s, CPU {row['cpu_seconds']:6.2f} s")
    print(f"{len(ours)} × 5: {total['seconds']:.1f} s, CPU {total['cpu_seconds']:.1f} s (bar {BAR:.0f} s)")
    for row in models:
        print(f"wide ResNet {row['model']}: {row['seconds']:.0f} s, CPU {row['cpu_seconds']:.0f} s for as many images")
    if given.out is not None:
        found = {"threads": given.threads, "images": IMAGES, "bar": BAR, "total": total, "rows": ours, "models": models}
        command = f"python -m benchmarks.corruptions --threads {given.threads}"
        files.write_json(given.out, {"command": command, **found, "provenance": provenance.collect()})


if __name__ == "__main__":
    main()
