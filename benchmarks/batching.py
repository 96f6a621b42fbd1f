"""How much of a training epoch batching takes, and how long loading takes. Needs a mirror of the hub (ISTHMUS_DATA).

    make bench
    python -m benchmarks.batching [--out results/benchmarks/batching.json]

Batches and real training steps alternate. Medians, because on a shared machine a mean is mostly waiting.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isthmus.core import files, provenance
from isthmus.data.batches import Batches
from isthmus.data.loading import load
from isthmus.models.backbones import MLP, WideResNet


def alternate(batches: Batches, net: nn.Module, steps: int, bf16: bool) -> tuple[float, float]:
    """Median seconds of serving a batch and of a training step on it."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    serving, training = [], []
    epoch = batches.epoch(0)
    for _ in range(steps):
        start = time.perf_counter()
        batch = next(epoch)
        served = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = nn.functional.cross_entropy(net(batch.images).float(), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        serving.append(served - start)
        training.append(time.perf_counter() - served)
    return statistics.median(serving[1:]), statistics.median(training[1:])


def measure() -> list[dict[str, Any]]:
    mnist = Batches(load("mnist").train, 100)
    classifier = nn.Sequential(MLP().build((1, 28, 28)), nn.LazyLinear(10))
    classifier(torch.zeros(1, 1, 28, 28))
    rows = [_row("MNIST, mlp, batch 100", *alternate(mnist, classifier, 200, bf16=False))]

    cifar = Batches(load("cifar10").train, 128, augment="crop_flip", channels_last=True)
    trunk = WideResNet(depth=7, width=2).build((3, 32, 32))
    classifier = nn.Sequential(trunk, nn.LazyLinear(10))
    classifier(torch.zeros(2, 3, 32, 32))
    classifier = classifier.to(memory_format=torch.channels_last)
    name = "CIFAR-10, wide_resnet 7x2, batch 128, crop and flip, bf16"
    return [*rows, _row(name, *alternate(cifar, classifier, 40, bf16=True))]


def _row(name: str, serving: float, training: float) -> dict[str, Any]:
    print(f"{name}: {serving * 1e3:.3f} ms a batch, {training * 1e3:.1f} ms a step, {serving / training:.2%} (bar 2%)")
    return {
        "case": name,
        "batch_ms": serving * 1e3,
        "step_ms": training * 1e3,
        "share": serving / training,
        "bar": 0.02,
    }


def loading(names: Sequence[str] = ("mnist", "fashion_mnist", "cifar10")) -> dict[str, float]:
    """Seconds to load each data set from the cache of its first decode."""
    seconds = {}
    for name in names:
        load(name)  # the first call decodes where nobody has yet
        start = time.perf_counter()
        load(name)
        seconds[name] = time.perf_counter() - start
        print(f"{name}: loaded from the cache in {seconds[name]:.2f} s (bar 5 s)")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None, help="write the numbers as JSON")
    given = parser.parse_args()
    if not os.environ.get("ISTHMUS_DATA"):
        print("batching: skipped, since ISTHMUS_DATA names no mirror of MNIST and CIFAR-10")
        return
    content = {"command": "python -m benchmarks.batching", "loading_seconds": loading(), "rows": measure()}
    if given.out is not None:
        files.write_json(given.out, content | {"provenance": provenance.collect()})


if __name__ == "__main__":
    main()
