"""What training and audits cost as the work grows: examples, classes, ε-grid, processes, and memory.

    python -m benchmarks.scaling [--only train-examples,audit-memory] [--out results/scaling.json]
    python -m benchmarks.scaling --plot results/scaling.json        # draws results/scaling.png

Each measurement is a process of its own, on one thread; its time is processor time (of all its processes), its memory
the largest resident set. Images are Fashion-MNIST's, from the training split where many are asked for (ISTHMUS_DATA).
Labels of more than ten classes are Fashion-MNIST's, each class cut by mean intensity into equal parts. A slope is that
of log cost over log size, by least squares: 1 where cost grows as the size does, 0 where it is flat. Imports and
decoding are over before the clock starts, but where processes are counted.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.core import files, provenance

MEMORY_BAR = 2048.0  # MiB that an audit of 60,000 images may take
THREAT = "linf:0.1"
Case = Mapping[str, Any]


@dataclass(frozen=True)
class Series:
    """Measurements along one axis.

    Attributes:
        axis: what grows.
        values: how far.
        case: from a value to what is measured.
        cost: "wall" or "processor" seconds, "mib", or "per_pass", seconds of CPU for 1,000 example-passes of attacks;
            what is drawn and fitted.
        says: the measurement in words.
    """

    axis: str
    values: Sequence[int]
    case: Callable[[int], Case]
    cost: str
    says: str


SIZES = (1000, 3000, 10000, 30000, 60000)
CLASSES = (10, 30, 100, 300, 1000)
SERIES: Mapping[str, Series] = {
    "train-examples": Series(
        "training images",
        SIZES,
        lambda n: {"verb": "train", "n": n},
        "processor",
        "ten epochs of a VIB classifier (MLP of 256, batches of 100), with tests on 1,000 images",
    ),
    "train-classes": Series(
        "classes",
        CLASSES,
        lambda c: {"verb": "steps", "classes": c},
        "processor",
        "100 steps of CEB (MLP of 256, batches of 256, b(z|y) as a table)",
    ),
    "train-batch": Series(
        "images a batch",
        (128, 512, 2048, 8192),
        lambda b: {"verb": "steps", "batch": b, "steps": 3},
        "mib",
        "steps of CEB with bounds that compare all pairs of a batch; memory",
    ),
    "train-processes": Series(
        "processes",
        (1, 2),
        lambda p: {"verb": "train", "n": 60000, "processes": p},
        "wall",
        "ten epochs of 60,000 images (batches of 1,000), from the command to its end",
    ),
    "audit-examples": Series(
        "images",
        SIZES,
        lambda n: {"verb": "audit", "n": n, "checks": ["robustness"]},
        "processor",
        "the robustness check",
    ),
    "audit-classes": Series(
        "classes",
        CLASSES,
        lambda c: {"verb": "audit", "n": 1000, "classes": c, "checks": ["robustness"]},
        "per_pass",
        "the robustness check, 1,000 images; classifiers of more classes are weaker, hence the cost of a pass",
    ),
    "audit-grid": Series(
        "values of ε",
        (1, 2, 4, 8, 16),
        lambda g: {"verb": "audit", "n": 1000, "checks": [{"name": "robustness", "levels": g}]},
        "processor",
        "the robustness check, 1,000 images",
    ),
    "audit-processes": Series(
        "processes",
        (1, 2),
        lambda p: {"verb": "attack", "n": 40000, "processes": p},
        "wall",
        "PGD of 100 steps on 40,000 images, workers' start included",
    ),
    "audit-batch": Series(
        "images a batch",
        (64, 256, 1024, 4096),
        lambda b: {"verb": "audit", "n": 4096, "batch": b, "checks": ["robustness"]},
        "mib",
        "the robustness check, 4,096 images; memory",
    ),
    "audit-memory": Series(
        "images",
        SIZES,
        lambda n: {"verb": "audit", "n": n},
        "mib",
        "all checks that are asked by default, verdict included; memory",
    ),
}


# --- one measurement, in a process of its own ---


def data(n: int, classes: int = 10) -> Any:
    """Training images of Fashion-MNIST, with labels of so many classes."""
    import torch

    from isthmus.data.images import ImageData
    from isthmus.data.loading import load

    loaded = load({"name": "fashion_mnist"})
    if classes == 10:
        split = loaded.train.select(torch.arange(n))
        return ImageData.of("fashion", split, loaded.test.select(torch.arange(1000)), loaded.classes)
    parts = classes // 10
    brightness = loaded.train.images.float().mean((1, 2, 3))
    labels = torch.empty_like(loaded.train.labels)
    for label in range(10):
        rows = (loaded.train.labels == label).nonzero().squeeze(1)
        order = brightness[rows].argsort().argsort()
        labels[rows] = label * parts + order * parts // len(rows)
    rows = _turns(labels).argsort(stable=True)[:n]
    split = loaded.train.select(rows).labelled(labels[rows])
    return ImageData.of("fashion", split, split, tuple(map(str, range(classes))))


def _turns(labels: Any) -> Any:
    """Of each example, how many of its class come before it: classes take turns where they are sorted by this."""
    import torch

    turns = torch.zeros_like(labels)
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1)
        turns[rows] = torch.arange(len(rows))
    return turns


def recipe(objective: Any, **training: Any) -> dict[str, Any]:
    model = {"backbone": {"name": "mlp", "hidden": [256]}, "dim": 16}
    return {"name": "scaling", "data": "fashion_mnist", "model": model, "objective": objective, "training": training}


def measured(case: Case) -> dict[str, float]:
    """Do what a case says; returns seconds on the wall and of processors, and the largest resident set in MiB."""
    import torch

    torch.set_num_threads(1)
    act = VERBS[case["verb"]](case)  # what stands ready is not timed
    wall, processor = time.perf_counter(), _processor()
    passes = act()
    found = {"wall": time.perf_counter() - wall, "processor": _processor() - processor}
    if isinstance(passes, int) and passes:
        found["per_pass"] = 1000 * found["processor"] / passes
    largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {**found, "mib": largest / 1024}


def _processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def train(case: Case) -> Callable[[], Any]:
    import isthmus
    from isthmus.data.loading import load
    from isthmus.training import loop  # noqa: F401

    load({"name": "fashion_mnist"})  # decoded once, into the cache
    processes = case.get("processes", 1)
    options = {"epochs": 10, "batch_size": 1000 if "processes" in case else 100, "devices": processes}
    given = recipe({"name": "vib", "rho": 4}, accelerator="cpu", **options)
    given["data"] = {"name": "fashion_mnist", "train_limit": case["n"], "test_limit": 1000}

    def act() -> None:
        with tempfile.TemporaryDirectory() as folder:
            if "processes" not in case:
                isthmus.train(given, out=f"{folder}/run", progress=False)
                return
            path = Path(folder) / "recipe.json"
            path.write_text(json.dumps(given), encoding="utf-8")
            command = [sys.executable, "-m", "isthmus", "train", str(path), "--out", f"{folder}/run", "-q"]
            subprocess.run(command, check=True, capture_output=True)

    return act


def steps(case: Case) -> Callable[[], Any]:
    import torch

    from benchmarks.training_step import Stepper

    batch, classes, count = case.get("batch", 256), case.get("classes", 10), case.get("steps", 100)
    given = recipe({"name": "ceb", "rho": 3}, batch_size=batch)
    given["model"] |= {"backward": "table", "covariance": "diagonal"}
    stepper = Stepper({key: given[key] for key in ("model", "objective", "training")}, {}, data(10000, classes))
    stepper.trainer.model.train()
    stepper.time(1)
    torch.manual_seed(0)
    return lambda: stepper.time(count)


def classifier(classes: int) -> Any:
    """A small network after one epoch on 10,000 images."""
    import torch
    from torch import nn
    from torch.nn import functional

    from isthmus.data.images import as_float

    torch.manual_seed(0)
    known = data(10000, classes).train
    images, labels = as_float(known.images), known.labels
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, classes))
    optimizer = torch.optim.Adam(model.parameters())
    for rows in torch.randperm(len(labels)).split(100):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images[rows]), labels[rows])
        torch.autograd.backward(loss)
        optimizer.step()
    return model.eval()


def audit(case: Case) -> Callable[[], Any]:
    import isthmus
    from isthmus.data.images import as_float

    classes = case.get("classes", 10)
    model, split = classifier(classes), data(case["n"], classes).train
    images, labels = as_float(split.images), split.labels

    def act() -> int:
        options = isthmus.AuditOptions(batch_size=case.get("batch", 256))
        found = isthmus.audit(model, images, labels, THREAT, case.get("checks"), options=options)
        passes = found.results["robustness"].details["modes"]["mean"]["passes"]
        return sum(map(sum, passes.values()))

    return act


def attack(case: Case) -> Callable[[], Any]:
    import isthmus
    from isthmus.data.images import as_float

    model, split = classifier(10), data(case["n"]).train
    images, labels = as_float(split.images), split.labels
    return lambda: isthmus.robust_accuracy(model, images, labels, THREAT, ["pgd:100"], jobs=case["processes"])


VERBS: Mapping[str, Callable[[Case], Callable[[], Any]]] = {
    "train": train,
    "steps": steps,
    "audit": audit,
    "attack": attack,
}


# --- all of them ---


def measure(name: str) -> dict[str, Any]:
    """A series, each point in a fresh process."""
    series, points = SERIES[name], []
    for value in series.values:
        command = [sys.executable, "-m", "benchmarks.scaling", "--case", json.dumps(series.case(value))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name} at {value}: {done.stderr[-2000:]}")
        point = {"value": value, **json.loads(done.stdout.splitlines()[-1])}
        points.append({key: round(number, 3) for key, number in point.items()})
        print(f"{name:16} {value:6} {point['wall']:9.1f} s {point['processor']:9.1f} s CPU {point['mib']:8.0f} MiB")
    return {"axis": series.axis, "says": series.says, "points": points, **fitted(series, points)}


def fitted(series: Series, points: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """The slope of what the series is about, over its upper half too, where fixed costs matter less."""
    if series.axis == "processes":
        return {"cost": series.cost, "ratio": round(points[0]["wall"] / points[-1]["wall"], 3)}
    cost = series.cost
    sizes = np.log([point["value"] for point in points])
    costs = np.log([point[cost] for point in points])
    last = len(points) // 2
    return {
        "cost": cost,
        "slope": round(float(np.polyfit(sizes, costs, 1)[0]), 3),
        "slope_of_upper_half": round(float(np.polyfit(sizes[last:], costs[last:], 1)[0]), 3),
    }


def plot(path: Path) -> Path:
    """One panel a series, cost over size on logarithmic axes."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    found = files.read_json(path)["series"]
    across = 5
    figure, panels = pyplot.subplots(math.ceil(len(found) / across), across, figsize=(16, 6.4), layout="constrained")
    units = {
        "wall": "seconds",
        "processor": "seconds of CPU",
        "mib": "MiB",
        "per_pass": "seconds of CPU for 1,000 passes",
    }
    for panel, (name, series) in zip(panels.flat, found.items(), strict=False):
        sizes = [point["value"] for point in series["points"]]
        costs = [point[series["cost"]] for point in series["points"]]
        panel.plot(sizes, costs, "o-", color="#2b6cb0")
        panel.set(xscale="log", yscale="log", xlabel=series["axis"], ylabel=units[series["cost"]])
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=30)
        panel.minorticks_off()
        panel.set_ylim(min(costs) / 2.5, max(costs) * 2.5)
        said = f"slope {series['slope']:.2f}" if "slope" in series else f"{series['ratio']:.2f} times as fast"
        panel.set_title(f"{name}: {said}", fontsize=10)
        if name == "audit-memory":
            panel.axhline(MEMORY_BAR, color="#c05621", linestyle="--", linewidth=1)
    for panel in panels.flat[len(found) :]:
        panel.axis("off")
    figure.savefig(drawn := path.with_suffix(".png"), dpi=110)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SERIES))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path, help="a result to draw")
    parser.add_argument("--case", help="one measurement, as JSON; prints what it took")
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measured(json.loads(given.case))))
        return
    if given.plot:
        print(plot(given.plot))
        return
    kept = files.read_json(given.out)["series"] if given.out and given.out.exists() else {}
    for name in given.only.split(","):
        kept[name] = measure(name)
        if given.out:  # what was measured is kept whatever comes
            largest = kept.get("audit-memory", {}).get("points", [{}])[-1].get("mib")
            content = {
                "command": "python -m benchmarks.scaling --out results/scaling.json",
                "series": {each: kept[each] for each in SERIES if each in kept},
                "bar": {"mib": MEMORY_BAR, "met": None if largest is None else largest <= MEMORY_BAR},
                "provenance": provenance.collect(),
            }
            files.write_json(given.out, content)
    if "audit-memory" in kept and kept["audit-memory"]["points"][-1]["mib"] > MEMORY_BAR:
        raise SystemExit(f"An audit of {SIZES[-1]:,} images takes more than {MEMORY_BAR:.0f} MiB.")


if __name__ == "__main__":
    main()
