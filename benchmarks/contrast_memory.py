"""Does the memory of picking one's own partner grow linearly with the batch?

    python -m benchmarks.contrast_memory [--out results/benchmarks/contrast-memory.json]

Peak memory that the contrastive terms and their gradient add to a process of its own, at batches of 1,024 and 4,096 and
4 dimensions: CatGen's, which picks labels by class, and bidirectional CEB's, which compares all pairs in parts. Beside
them the same without parts, all pairs at once.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from isthmus.core import files, provenance
from isthmus.information import contrast
from isthmus.information.gaussians import FullGaussian

BATCHES = (1024, 4096)
CASES = ("among labels", "among codes", "among codes, all at once")
DIM, CLASSES = 4, 10


def peak() -> float:
    """Peak resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def gaussians(n: int) -> FullGaussian:
    factor = torch.eye(DIM).expand(n, DIM, DIM) + 0.1 * torch.randn(n, DIM, DIM).tril()
    return FullGaussian(torch.randn(n, DIM).requires_grad_(), factor.clone().requires_grad_())


def added(case: str, n: int) -> float:
    """MiB that one forward and backward pass adds; a small one before it pays for what comes once."""
    for size in (64, n):
        torch.manual_seed(0)
        partners = gaussians(CLASSES if case == "among labels" else size)
        codes = torch.randn(1, size, DIM, requires_grad=True)
        before = peak()
        if case == "among labels":
            loss = contrast.among_labels(partners, codes, torch.arange(size) % CLASSES)
        else:
            contrast.ROWS = contrast.ROWS if case == "among codes" else size
            loss = contrast.among_codes(partners, codes)
        loss.mean().backward()
    return peak() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/contrast-memory.json"))
    parser.add_argument("--one", nargs=2, metavar=("CASE", "BATCH"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(added(given.one[0], int(given.one[1])))
        return
    rows: list[dict[str, Any]] = []
    for case in CASES:
        sizes = []
        for n in BATCHES:
            command = [sys.executable, "-m", "benchmarks.contrast_memory", "--one", case, str(n)]
            sizes.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        rows.append({"case": case, "batches": BATCHES, "mib": sizes, "growth": sizes[1] / max(sizes[0], 1.0)})
        Console().print(f"{case}: {sizes[0]:.0f} MiB at {BATCHES[0]:,}, {sizes[1]:.0f} at {BATCHES[1]:,}")
    content = {"command": "python -m benchmarks.contrast_memory", "rows": rows, "provenance": provenance.collect()}
    files.write_json(given.out, content)


if __name__ == "__main__":
    main()
