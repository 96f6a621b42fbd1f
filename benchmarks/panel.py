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
from benchmarks.attack_models import build
from benchmarks.honest import HONEST, Honest, certain
from benchmarks.illusions import ILLUSIONS
from isthmus.core import files, provenance
from isthmus.data.images import as_float
from isthmus.data.loading import load

BASE = "undefended"
UNFOOLED = ("early answers", "random noise", "random resizing", "dropout left on")
"""Illusions that PGD sees through by itself: asked about is a claim, the accuracy at random points of the ball."""


def examined(name: str, case: Honest, n: int) -> dict[str, Any]:
    """One model's verdict with what it rests on, for each of its modes."""
    test, threat = load(case.data).test, isthmus.Linf(case.eps)
    images, labels = as_float(test.images[:n]), test.labels[:n]
    model = case.make()
    claim = isthmus.robust_accuracy(model, images, labels, threat, "uniform:2").accuracy if name in UNFOOLED else None
    start = time.perf_counter()
    audit = isthmus.audit(model, images, labels, threat, ["diagnosis"], claimed=claim, name=name, data=case.data)
    found = audit.results["diagnosis"].details
    return {
        "n": n,
        "data": case.data,
        "eps": case.eps,
        "seconds": time.perf_counter() - start,
        "commit": provenance.commit(),
        "closed_form": certain(model, images, labels, case.eps) if name.startswith("linear") else None,
        "modes": {
            mode: {
                "verdict": each["verdict"],
                "failed": [finding["test"] for finding in each["findings"] if finding["status"] == "fail"],
                "warned": [finding["test"] for finding in each["findings"] if finding["status"] == "warn"],
                "follow_ups": {follow_up: metric["value"] for follow_up, metric in each["follow_ups"].items()},
                "passes": each["passes"],
            }
            for mode, each in found["modes"].items()
        },
    }


def cases() -> dict[str, Honest]:
    """Everything that is examined, by name."""

    def planted(make: Callable[[nn.Module], nn.Module]) -> Honest:
        return Honest(lambda: make(build(BASE)).eval(), HONEST[BASE].data, HONEST[BASE].eps)

    return HONEST | {name: planted(make) for name, make in ILLUSIONS.items()}


def show(results: dict[str, Any]) -> None:
    """As a table, and as rows of results/README.md."""
    table = Table(title="The battery's verdicts; reported by PGD-40 on the cross-entropy, or claimed")
    columns = ("model", "verdict", "reported", "corrected", "failed tests", "passes per image", "seconds")
    for column in columns:
        table.add_column(column, justify="left" if column in ("model", "verdict", "failed tests") else "right")
    rows = []
    for name, found in results["models"].items():
        for mode, each in found["modes"].items():
            verdict, passes = each["verdict"], each["passes"]
            rows.append(
                (
                    name if mode == "mean" else f"{name}, {mode} mode",
                    verdict["status"],
                    f"{verdict['reported']:.1%}",
                    f"{verdict['corrected']:.1%}",
                    ", ".join(each["failed"]),
                    f"{(passes['forward'] + passes['backward']) / found['n']:,.0f}",
                    f"{found['seconds']:.0f}",
                )
            )
            table.add_row(*rows[-1])
    console = Console(width=150)
    console.print(table)
    for row in rows:
        print(f"| {' | '.join(row)} |")


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
        torch.manual_seed(0)
        results["models"][name] = examined(name, known[name], given.n)
        files.write_json(given.out, results)
    show(results)


if __name__ == "__main__":
    main()
