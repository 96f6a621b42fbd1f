"""Time and passes of the command until the verdict, for a small network and 500 Fashion-MNIST images.

    python -m benchmarks.verdict_time [--budgets quick full] [--out results/benchmarks/verdict-time.json]

Runs `isthmus audit` as a process, including start-up and page: once with all checks, once with the diagnosis alone.
Needs a mirror of the hub (ISTHMUS_DATA); trains the network if it is not cached.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from benchmarks.attack_models import build
from benchmarks.attacks import environment
from isthmus.core import files, provenance
from isthmus.core.results import load_result
from isthmus.core.types import CheckResult

N = 500
BARS = {"quick": 60.0, "full": 600.0}
"""Seconds to the verdict, on two cores."""

DONE = (0, 3, 4, 5)
"""Exit codes with which an audit has a verdict."""


def trained_53() -> nn.Module:
    """The network, for `--model benchmarks.verdict_time:trained_53`."""
    return build("trained-53")


def seconds(budget: str, checks: str | None) -> dict[str, Any]:
    """Run one command, and return its time, passes and verdict."""
    with tempfile.TemporaryDirectory() as folder:
        given = ["--model", "benchmarks.verdict_time:trained_53", "--data", "fashion_mnist", "--threat", "linf:0.1"]
        given += ["--n", str(N), f"--{budget}", "--out", folder, "--quiet", *(["--checks", checks] if checks else [])]
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "isthmus", "audit", *given], check=False, capture_output=True)
        took = time.perf_counter() - start
        result = load_result(Path(folder) / "audit", "diagnosis") if done.returncode in DONE else None
    shown = " ".join(["isthmus audit", *given[: given.index("--out")], *(["--checks", checks] if checks else [])])
    return {"command": shown, "seconds": took, "exit": done.returncode, "met": took < BARS[budget], **_cost(result)}


def _cost(result: CheckResult | None) -> dict[str, Any]:
    """The verdict, the passes per image, and their limit."""
    if result is None:
        return {}
    passes, verdict = result.details["modes"][result.details["mode"]]["passes"], result.details["verdict"]
    n = verdict["corrected_metric"]["n"]
    return {
        "verdict": verdict["status"],
        "not_tried": verdict["not_tried"],
        "passes_per_image": (passes["forward"] + passes["backward"]) / n,
        "at_most": passes["bound"] / n,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--budgets", nargs="+", choices=list(BARS), default=list(BARS))
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/verdict-time.json"))
    given = parser.parse_args()
    trained_53()
    results = {"environment": environment(), "threads": torch.get_num_threads(), "commit": provenance.commit(), "n": N}
    results |= {"bars": BARS, "runs": []}
    for budget in given.budgets:
        for checks in ("diagnosis", None):
            found = seconds(budget, checks)
            results["runs"].append(found)
            files.write_json(given.out, results)
            spent = (
                f"{found['passes_per_image']:,.0f} passes per image" if "passes_per_image" in found else "no verdict"
            )
            Console().print(f"{found['command']}: {found['seconds']:.0f} s, {spent}, exit code {found['exit']}")


if __name__ == "__main__":
    main()
