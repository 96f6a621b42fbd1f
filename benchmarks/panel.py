"""The battery against planted illusions and honest models: is every illusion seen through, and nobody accused?

    python -m benchmarks.panel [--n 500] [--names NAME ...] [--out results/benchmarks/panel.json]

Illusions are put upon the undefended network of :mod:`benchmarks.attack_models`, so that what is left of each should be
what is left of it: nothing. Needs a mirror of the hub (ISTHMUS_DATA). Written after every model.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import isthmus
from benchmarks.attack_models import RADII, RECIPES, build, test_images
from benchmarks.illusions import ILLUSIONS
from isthmus import files

HONEST = ("undefended", "trained-53", "trained-74", "mnist-03")
BASE = "undefended"
UNFOOLED = ("random noise", "random resizing", "dropout left on")
"""Illusions that PGD sees through by itself: asked about is a claim, the accuracy at random points of the ball."""


def examined(name: str, model: nn.Module, of: str, n: int) -> dict[str, Any]:
    images, labels = test_images(of, n)
    threat = isthmus.Linf(RADII[RECIPES[of].data])
    claim = isthmus.robust_accuracy(model, images, labels, threat, "uniform:2").accuracy if name in UNFOOLED else None
    start = time.perf_counter()
    audit = isthmus.audit(
        model, images, labels, threat, ["obfuscation"], claimed=claim, name=name, data=RECIPES[of].data
    )
    found = audit.results["obfuscation"]
    (mode,) = found.details["modes"].values()
    return {
        "n": n,
        "eps": threat.eps,
        "verdict": found.details["verdict"],
        "failed": [finding["test"] for finding in mode["findings"] if finding["status"] == "fail"],
        "warned": [finding["test"] for finding in mode["findings"] if finding["status"] == "warn"],
        "follow_ups": {follow_up: metric["value"] for follow_up, metric in mode["follow_ups"].items()},
        "passes": mode["passes"],
        "seconds": time.perf_counter() - start,
    }


def cases() -> dict[str, tuple[Callable[[], nn.Module], str]]:
    honest = {name: ((lambda name=name: build(name)), name) for name in HONEST}
    return honest | {name: ((lambda make=make: make(build(BASE)).eval()), BASE) for name, make in ILLUSIONS.items()}


def show(results: dict[str, Any]) -> None:
    table = Table(title="The battery's verdicts; reported by PGD-40 on the cross-entropy, or claimed")
    for column in ("model", "verdict", "reported", "corrected", "failed tests", "passes per image", "seconds"):
        table.add_column(column, justify="left" if column in ("model", "verdict", "failed tests") else "right")
    for name, found in results["models"].items():
        verdict, passes = found["verdict"], found["passes"]
        table.add_row(
            name,
            verdict["status"],
            f"{verdict['reported']:.1%}",
            f"{verdict['corrected']:.1%}",
            ", ".join(found["failed"]),
            f"{(passes['forward'] + passes['backward']) / found['n']:,.0f}",
            f"{found['seconds']:.0f}",
        )
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    known = cases()
    parser.add_argument("--n", type=int, default=500, help="images")
    parser.add_argument("--names", nargs="+", choices=list(known), default=list(known))
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/panel.json"))
    given = parser.parse_args()
    results = files.read_json(given.out) if given.out.exists() else {"models": {}}
    results["command"] = " ".join(["python -m benchmarks.panel", *sys.argv[1:]])
    results["environment"] = {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }
    for name in given.names:
        make, of = known[name]
        torch.manual_seed(0)
        results["models"][name] = examined(name, make(), of, given.n)
        files.write_json(given.out, results)
    show(results)


if __name__ == "__main__":
    main()
