"""AutoAttack against ours, side by side: four small classifiers, the same 1,000 test images, the same ball.

    python -m benchmarks.attacks [--n 1000] [--rounds 3] [--models trained-53 ...] [--bf16] [--out FILE]

The peer is torchattacks with AutoAttack's published budgets, in its favour on a copy of the model without parameter
gradients, once. Ours is the median of the rounds. Seconds are of this machine in this run; example-passes are exact.
The peer's images are judged again in float32 inside ball and box; ours have to win by more than rounding, too. Results
are written after every model, so that a run that was stopped keeps what it has; ``--models`` adds the others to the
same file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.attack_models import RADII, RECIPES, build, test_images
from benchmarks.peers import Counting, attack, autoattack, measure
from isthmus import files
from isthmus.attacks import Linf, robust_accuracy
from isthmus.attacks.oracle import Oracle

# model: how many times faster standard and fast must be, and how many points above the peer's robust accuracy
BARS = {
    "undefended": {"standard": (10.0, 0.0), "fast": (20.0, 0.0)},
    "trained-53": {"standard": (1.6, 0.1), "fast": (12.0, 0.2)},
    "trained-74": {"standard": (1.5, 0.1), "fast": (12.0, 0.2)},
    "mnist-03": {"standard": (1.4, 0.1), "fast": (10.0, 0.2)},
}
PEER_BATCH = 500
MEMORY_EXAMPLES = 500


def radius(name: str) -> Linf:
    return Linf(RADII[RECIPES[name].data])


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
        "robust": measured.robust.nonzero().squeeze(1).tolist(),
    }


def ours(
    name: str, model: nn.Module, images: Tensor, labels: Tensor, suite: str, rounds: int, bf16: bool = False
) -> dict[str, Any]:
    seconds, share = [], []
    for _ in range(rounds):
        with outside() as clock:
            result = robust_accuracy(model, images, labels, radius(name), suite, bf16=bf16)
        seconds.append(clock["all"])
        share.append(1 - clock["model"] / clock["all"])
    interval = result.interval
    return {
        "accuracy": result.accuracy,
        "interval": [interval.low, interval.high],
        "seconds": statistics.median(seconds),
        "rounds": seconds,
        "outside_model": statistics.median(share),
        "forward": result.forward_passes,
        "backward": result.backward_passes,
        "by_attack": result.by_attack,
        "robust": result.robust.nonzero().squeeze(1).tolist(),
    }


@contextmanager
def outside() -> Iterator[dict[str, float]]:
    """Time in all, and within calls of the model with their backward passes."""
    clock = {"model": 0.0, "all": 0.0}
    originals = {name: getattr(Oracle, name) for name in ("_gradient", "_scouted", "_plain")}

    def timed(function: Any) -> Any:
        def call(*given: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*given)
            finally:
                clock["model"] += time.perf_counter() - start

        return call

    for name, function in originals.items():
        setattr(Oracle, name, timed(function))
    start = time.perf_counter()
    try:
        yield clock
    finally:
        clock["all"] = time.perf_counter() - start
        for name, function in originals.items():
            setattr(Oracle, name, function)


def compare(name: str, n: int, rounds: int, standard: int, bf16: bool) -> dict[str, Any]:
    """One model: the peer once, then each of our suites."""
    model = build(name)
    images, labels = test_images(name, n)
    found: dict[str, Any] = {"n": n, "eps": radius(name).eps, "peer": peer(name, model, images, labels)}
    for suite in ("standard", "fast"):
        found[suite] = ours(
            name, model, images, labels, suite, min(rounds, standard) if suite == "standard" else rounds
        )
    if bf16:
        found["fast-bf16"] = ours(name, model, images, labels, "fast", rounds, bf16=True)
    for suite in [key for key in found if key in ("standard", "fast", "fast-bf16")]:
        faster = found["peer"]["seconds"] / found[suite]["seconds"]
        points = 100 * (found[suite]["accuracy"] - found["peer"]["accuracy"])
        bar = BARS[name].get(suite)
        met = None if bar is None else bool(faster >= bar[0] and points <= bar[1] + 1e-9)
        found[suite] |= {"times_faster": faster, "points_above_peer": points, "bar": bar, "met": met}
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


def peak_memory(name: str) -> dict[str, float]:
    """Peak resident memory in MiB of a process of its own for each side: what its attack adds to what it had before."""
    found = {}
    for side in ("peer", "standard", "fast"):
        command = [sys.executable, "-m", "benchmarks.attacks", "--memory-of", side, "--models", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[side] = json.loads(done.stdout.splitlines()[-1])
    return found


def memory_of(side: str, name: str) -> float:
    """The first 500 images, with few queries: neither side's memory grows with its budget."""
    model = build(name)
    images, labels = test_images(name, MEMORY_EXAMPLES)
    counting, threat = Counting(model), radius(name)
    with torch.no_grad():
        model(images[:PEER_BATCH])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
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
            "fast": [{"name": "race", "rounds": [[9, 3], [3, 5], [1, 8]], "long": 5, "queries": 50}],
        }
        robust_accuracy(model, images, labels, threat, short[side])
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def show(results: dict[str, Any]) -> None:
    table = Table(title="AutoAttack (torchattacks, full budgets) and ours; ours the median of the rounds")
    for column in ("model", "suite", "robust", "seconds", "forward", "backward", "outside model", "faster", "bar"):
        table.add_column(column, justify="left" if column in ("model", "suite", "bar") else "right")
    for name, found in results["models"].items():
        for suite in ("peer", "standard", "fast", "fast-bf16"):
            if suite not in found:
                continue
            row = found[suite]
            own = suite != "peer"
            bar = row.get("bar")
            said = f"{'met' if row['met'] else 'MISSED'} (≥ {bar[0]:g}×, ≤ +{bar[1]:g})" if bar else ""
            table.add_row(
                name,
                "AutoAttack" if not own else suite,
                f"{100 * row['accuracy']:.1f}%",
                f"{row['seconds']:.1f}",
                f"{row['forward']:,}",
                f"{row['backward']:,}",
                f"{100 * row['outside_model']:.0f}%" if own else "",
                f"{row['times_faster']:.1f}×" if own else "",
                said,
            )
    Console(width=140).print(table)


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
    parser.add_argument("--standard-rounds", type=int, default=3, help="rounds of standard, which takes minutes each")
    parser.add_argument("--bf16", action="store_true", help="also fast with gradients in bfloat16")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/attacks.json"))
    parser.add_argument("--memory-of", choices=("peer", "standard", "fast"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        print(json.dumps(memory_of(given.memory_of, given.models[0])))
        return
    results = json.loads(given.out.read_text()) if given.out.exists() else {"models": {}}
    command = "python -m benchmarks.attacks " + " ".join(sys.argv[1:])
    for name in given.models:
        results["models"][name] = (
            {"command": command}
            | compare(name, given.n, given.rounds, given.standard_rounds, given.bf16)
            | {"environment": environment()}
        )
        files.write_json(given.out, results)
        show(results)
    if "trained-53" in given.models:
        results["single attacks (trained-53)"] = per_pass("trained-53", given.n, given.rounds)
        results["peak memory added, MiB (trained-53)"] = peak_memory("trained-53")
        files.write_json(given.out, results)
    Console().print({key: value for key, value in results.items() if key != "models"})


if __name__ == "__main__":
    main()
