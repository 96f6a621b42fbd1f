"""AutoAttack against ours, side by side: four small classifiers, the same 1,000 test images, the same ball.

    python -m benchmarks.attacks [--n 1000] [--rounds 3] [--models trained-53 ...] [--bf16] [--out FILE]

The peer is torchattacks with AutoAttack's published budgets, in its favour on a copy of the model without parameter
gradients, once. Ours is the median of the rounds. Seconds are of this machine in this run; example-passes are exact.
The peer's images are judged again in float32 inside ball and box; ours have to win by more than rounding, too. Results
are written after every model, so that a run that was stopped keeps what it has; ``--models`` adds to the same file, in
place of earlier rows of the same models. ``robust`` there has one digit for each image: 1 where it stands, 0 where not.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.attack_models import RADII, RECIPES, build, test_images
from benchmarks.peers import Counting, attack, autoattack, measure
from isthmus.attacks import Linf, robust_accuracy
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.core import files

# model: how many times faster standard and fast must be, and how many points above the peer's robust accuracy
BARS = {
    "undefended": {"standard": (10.0, 0.0), "fast": (60.0, 0.0)},
    "trained-53": {"standard": (1.5, 0.1), "fast": (50.0, 0.1)},
    "trained-74": {"standard": (1.5, 0.1), "fast": (50.0, 0.1)},
    "mnist-03": {"standard": (1.5, 0.1), "fast": (50.0, 0.1)},
}
SUITES = {"standard": ("standard", False), "fast": ("fast", False), "fast-bf16": ("fast", True)}
"""Our rows: the suite, and whether its gradients are in bfloat16."""

PEER_BATCH = 500
MEMORY_EXAMPLES = 500
IN_DETAIL = "trained-53"
"""The model whose single attacks and memory are measured too."""


def radius(name: str) -> Linf:
    return Linf(RADII[RECIPES[name].data])


def digits(robust: Tensor) -> str:
    """One character for each image: 1 where it stands, 0 where not."""
    return "".join(str(int(stands)) for stands in robust.tolist())


def peer(name: str, model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Any]:
    counting = Counting(model)
    run = autoattack(counting, radius(name).eps)
    measured = measure(run, counting, images, labels, radius(name), PEER_BATCH)
    return {
        "accuracy": measured.accuracy,
        "seconds": measured.seconds,
        "forward": measured.forwards,
        "backward": measured.backwards,
        "stages": [
            {
                "attack": stage.name,
                "seconds": stage.seconds,
                "forward": stage.forwards,
                "backward": stage.backwards,
                "left": stage.standing[1],
            }
            for stage in run.stages
        ],
        "robust": digits(measured.robust),
    }


def ours(name: str, model: nn.Module, images: Tensor, labels: Tensor, row: str, rounds: int) -> dict[str, Any]:
    suite, bf16 = SUITES[row]
    clocks = []
    for _ in range(rounds):
        with timed() as clock:
            result = robust_accuracy(model, images, labels, radius(name), suite, options=RunOptions(bf16=bf16))
        clocks.append(clock)
    return {
        "accuracy": result.accuracy,
        "interval": [result.interval.low, result.interval.high],
        "seconds": statistics.median(clock.seconds for clock in clocks),
        "rounds": [clock.seconds for clock in clocks],
        "outside_model": statistics.median(1 - clock.in_model / clock.seconds for clock in clocks),
        "forward": result.forward_passes,
        "backward": result.backward_passes,
        "by_attack": result.by_attack,
        "robust": digits(result.robust),
    }


@dataclass
class Clock:
    """Seconds in all, and within calls of the model with their backward passes."""

    seconds: float = 0.0
    in_model: float = 0.0
    running: bool = False


@contextmanager
def timed() -> Iterator[Clock]:
    """A clock of what happens inside, complete when left."""
    clock = Clock()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            if clock.running:  # a gradient includes a forward pass
                return function(*given)
            start, clock.running = time.perf_counter(), True
            try:
                return function(*given)
            finally:
                clock.in_model += time.perf_counter() - start
                clock.running = False

        return call

    with ExitStack() as patches:
        for name in ("_gradient", "_forward"):
            patches.enter_context(patch.object(CountedModel, name, counted(getattr(CountedModel, name))))
        start = time.perf_counter()
        yield clock
        clock.seconds = time.perf_counter() - start


def compare(name: str, n: int, rounds: dict[str, int]) -> dict[str, Any]:
    """One model: the peer once, then each of our rows as many times as it is to have rounds."""
    model = build(name)
    images, labels = test_images(name, n)
    theirs = peer(name, model, images, labels)
    found: dict[str, Any] = {"n": n, "eps": radius(name).eps, "peer": theirs}
    for row, times in rounds.items():
        own = ours(name, model, images, labels, row, times)
        faster = theirs["seconds"] / own["seconds"]
        points = 100 * (own["accuracy"] - theirs["accuracy"])
        bar = BARS[name].get(row)
        met = None if bar is None else faster >= bar[0] and points <= bar[1] + 1e-9
        found[row] = own | {"times_faster": faster, "points_above_peer": points, "bar": bar, "met": met}
    return found


def per_pass(name: str, n: int, rounds: int) -> dict[str, Any]:
    """PGD of 40 steps and APGD of 100 on the cross-entropy: seconds per example-pass, in turns; passes in all."""
    model, threat = build(name), radius(name)
    images, labels = test_images(name, n)
    spent: dict[str, list[float]] = {}
    passes: dict[str, list[int]] = {}
    for _ in range(rounds):
        for kind in ("torchattacks:pgd", "foolbox:pgd", "torchattacks:apgd-ce"):
            counting = Counting(model)
            measured = measure(attack(kind, counting, threat), counting, images, labels, threat, PEER_BATCH)
            spent.setdefault(kind, []).append(measured.seconds)
            passes[kind] = [measured.forwards, measured.backwards]
        for kind, suite in (("isthmus:pgd", "pgd:40"), ("isthmus:apgd-ce", "apgd:100")):
            start = time.perf_counter()
            result = robust_accuracy(model, images, labels, threat, suite)
            spent.setdefault(kind, []).append(time.perf_counter() - start)
            passes[kind] = [result.forward_passes, result.backward_passes]
    return {
        kind: {
            "seconds": statistics.median(times),
            "forward": passes[kind][0],
            "backward": passes[kind][1],
            "microseconds_per_pass": 1e6 * statistics.median(times) / sum(passes[kind]),
        }
        for kind, times in spent.items()
    }


def added_memory(name: str) -> dict[str, float]:
    """What each side's attack adds, in MiB, to the peak memory of a process of its own."""
    found = {}
    for side in ("peer", "standard", "fast"):
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            found[side] = fresh.submit(_added_by, side, name).result()
    return found


def _added_by(side: str, name: str) -> float:
    """The first 500 images, with few queries: neither side's memory grows with its budget."""
    model = build(name)
    images, labels = test_images(name, MEMORY_EXAMPLES)
    counting, threat = Counting(model), radius(name)
    with torch.no_grad():
        model(images[:PEER_BATCH])
    before = _peak()
    if side == "peer":
        for kind, steps in (("apgd-ce", 5), ("apgd-t", 3), ("fab-t", 3), ("square", 50)):
            attack(f"torchattacks:{kind}", counting, threat, steps)(images, labels)
    else:
        short = {
            "standard": [
                "apgd:5",
                {"name": "apgd", "loss": "dlr", "targets": 9, "steps": 3},
                {"name": "fab", "targets": 9, "steps": 3},
                "square:50",
            ],
            "fast": [{"name": "race", "rounds": [[1, 9, 3], [1, 1, 8]], "queries": 50, "sample_queries": 20}],
        }
        robust_accuracy(model, images, labels, threat, short[side])
    return _peak() - before


def _peak() -> float:
    """Peak resident memory of this process in MiB, from Linux; getrusage's begins at that of the parent process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kibibytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kibibytes) / 1024


def show(results: dict[str, Any]) -> None:
    table = Table(title="AutoAttack (torchattacks, full budgets) and ours; ours the median of the rounds")
    for column in ("model", "suite", "robust", "seconds", "forward", "backward", "outside model", "faster", "bar"):
        table.add_column(column, justify="left" if column in ("model", "suite", "bar") else "right")
    for name, found in results["models"].items():
        table.add_row(name, "AutoAttack", *_measured(found["peer"]))
        for suite in [suite for suite in SUITES if suite in found]:
            row = found[suite]
            bar = row["bar"]
            table.add_row(
                name,
                suite,
                *_measured(row),
                f"{row['outside_model']:.0%}",
                f"{row['times_faster']:.1f}×",
                f"{'met' if row['met'] else 'MISSED'} (≥ {bar[0]:g}×, ≤ +{bar[1]:g})" if bar else "",
            )
    Console(width=140).print(table)


def _measured(row: dict[str, Any]) -> tuple[str, str, str, str]:
    return f"{row['accuracy']:.1%}", f"{row['seconds']:.1f}", f"{row['forward']:,}", f"{row['backward']:,}"


def environment() -> dict[str, Any]:
    return {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(BARS), default=list(BARS))
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--standard-rounds", type=int, default=3, help="rounds of standard, which takes minutes each; 0: without"
    )
    parser.add_argument("--bf16", action="store_true", help="also fast with gradients in bfloat16")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/attacks.json"))
    given = parser.parse_args()
    rounds = {"standard": min(given.rounds, given.standard_rounds), "fast": given.rounds}
    rounds |= {"fast-bf16": given.rounds} if given.bf16 else {}
    rounds = {suite: times for suite, times in rounds.items() if times}
    results = files.read_json(given.out) if given.out.exists() else {"models": {}}
    command = " ".join(["python -m benchmarks.attacks", *sys.argv[1:]])
    for name in given.models:
        found = compare(name, given.n, rounds)
        results["models"][name] = {"command": command, **found, "environment": environment()}
        files.write_json(given.out, results)
        show(results)
    if IN_DETAIL in given.models:
        results[f"single attacks ({IN_DETAIL})"] = per_pass(IN_DETAIL, given.n, given.rounds)
        results[f"peak memory added, MiB ({IN_DETAIL})"] = added_memory(IN_DETAIL)
        files.write_json(given.out, results)
    Console().print({key: value for key, value in results.items() if key != "models"})


if __name__ == "__main__":
    main()
