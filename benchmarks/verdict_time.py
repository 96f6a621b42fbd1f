"""How long the command takes to a verdict, on a small convolutional network and 500 Fashion-MNIST images.

    python -m benchmarks.verdict_time [--budgets quick full] [--out results/benchmarks/verdict-time.json]

Runs `isthmus audit` as a process, start-up and page included: all checks, and the verdict's alone. Needs a mirror of
the hub (ISTHMUS_DATA); trains the network where it is not cached.
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
from isthmus import files, provenance

N = 500
BARS = {"quick": 60.0, "full": 600.0}
"""Seconds to the verdict, on two cores."""


def trained_53() -> nn.Module:
    """The network, as `--model benchmarks.verdict_time:trained_53` builds it."""
    return build("trained-53")


def seconds(budget: str, checks: str | None) -> dict[str, Any]:
    """What one command took, and the verdict in its last lines."""
    with tempfile.TemporaryDirectory() as folder:
        given = ["--model", "benchmarks.verdict_time:trained_53", "--data", "fashion_mnist", "--threat", "linf:0.1"]
        given += ["--n", str(N), f"--{budget}", "--out", folder, "--quiet", *(["--checks", checks] if checks else [])]
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "isthmus.cli", "audit", *given], check=False, capture_output=True)
        took = time.perf_counter() - start
    shown = " ".join(["isthmus audit", *given[: given.index("--out")], *(["--checks", checks] if checks else [])])
    return {"command": shown, "seconds": took, "exit": done.returncode, "met": took < BARS[budget]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--budgets", nargs="+", choices=list(BARS), default=list(BARS))
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/verdict-time.json"))
    given = parser.parse_args()
    trained_53()
    results = {"environment": environment(), "threads": torch.get_num_threads(), "commit": provenance.commit(), "n": N}
    results |= {"bars": BARS, "runs": []}
    for budget in given.budgets:
        for checks in ("obfuscation", None):
            found = seconds(budget, checks)
            results["runs"].append(found)
            files.write_json(given.out, results)
            Console().print(f"{found['command']}: {found['seconds']:.0f} s, exit code {found['exit']}")


if __name__ == "__main__":
    main()
