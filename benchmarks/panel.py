"""The diagnosis on illusions of robustness and on sound models: is every illusion exposed, and does every sound model
hold?

    python -m benchmarks.panel [--n 500] [--names NAME ...] [--out results/benchmarks/panel.json]

Illusions wrap the undefended network of :mod:`benchmarks.attack_models`, so the corrected accuracy of each should be
that of the network: zero. Needs a mirror of the hub (ISTHMUS_DATA). The file is written after every model.
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
from benchmarks.illusions import ILLUSIONS
from benchmarks.sound_models import SOUND_MODELS, Case, exact_accuracy
from isthmus.core import files, provenance
from isthmus.data.images import as_float
from isthmus.data.loading import load

BASE = "undefended"
CLAIMED = ("early answers", "random noise", "random resizing", "dropout left on")
"""Illusions that PGD breaks, diagnosed with a claim instead: the accuracy at random points of the ball."""


def diagnosed(name: str, case: Case, n: int) -> dict[str, Any]:
    """The verdict on a model and its evidence, for each mode."""
    test, threat = load(case.data).test, isthmus.Linf(case.eps)
    images, labels = as_float(test.images[:n]), test.labels[:n]
    model = case.make()
    claim = isthmus.robust_accuracy(model, images, labels, threat, "uniform:2").accuracy if name in CLAIMED else None
    start = time.perf_counter()
    options = isthmus.AuditOptions(name=name, data=case.data)
    audit = isthmus.audit(model, images, labels, threat, ["diagnosis"], claimed=claim, options=options)
    found = audit.results["diagnosis"].details
    return {
        "n": n,
        "data": case.data,
        "eps": case.eps,
        "seconds": time.perf_counter() - start,
        "commit": provenance.commit(),
        "closed_form": exact_accuracy(model, images, labels, case.eps) if name.startswith("linear") else None,
        "modes": {
            mode: {
                "verdict": each["verdict"],
                "failed": [test["test"] for test in each["tests"] if test["status"] == "fail"],
                "warned": [test["test"] for test in each["tests"] if test["status"] == "warn"],
                "follow_ups": {follow_up: metric["value"] for follow_up, metric in each["follow_ups"].items()},
                "passes": each["passes"],
            }
            for mode, each in found["modes"].items()
        },
    }


def cases() -> dict[str, Case]:
    """All models, by name."""

    def illusion(make: Callable[[nn.Module], nn.Module]) -> Case:
        return Case(lambda: make(build(BASE)).eval(), SOUND_MODELS[BASE].data, SOUND_MODELS[BASE].eps)

    return SOUND_MODELS | {name: illusion(make) for name, make in ILLUSIONS.items()}


def show(results: dict[str, Any]) -> None:
    """Print a table, and its rows for results/README.md."""
    table = Table(title="Verdicts; reported is the accuracy against PGD-40 on the cross-entropy, or a claim")
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
        results["models"][name] = diagnosed(name, known[name], given.n)
        files.write_json(given.out, results)
    show(results)


if __name__ == "__main__":
    main()
