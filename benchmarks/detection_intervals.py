"""How often the intervals of AUROC, AUPR and FPR at 95% TPR hold the truth, up to AUROCs near 1.

    python -m benchmarks.detection_intervals [--runs 200] [--out results/benchmarks/detection-intervals.json]

Normal scores whose AUROC, AUPR and FPR are known in closed form or by integration over recall, of 200 and of 1,000
examples of either class; the outside scores have the same deviation as the others, or twice as much. AUROC needs no
bootstrap and is measured on five times as many samples; of 1,000 examples a third of the samples is drawn. The bar:
93% or more.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import norm

from isthmus.core import files, provenance
from isthmus.metrics import detection_metrics, wilson

BAR = 0.93
TRUTHS = (0.71, 0.9, 0.983, 0.995, 0.9993, 0.9995)
Floats = NDArray[np.float64]


def truth(auroc: float, ratio: float) -> dict[str, float]:
    """What the population has, of as many examples of either class."""
    ends = np.geomspace(1e-9, 0.5, 20_000)
    recall = np.concatenate([ends, 1 - ends[-2::-1]])
    shift = np.hypot(1, ratio) * norm.ppf(auroc)
    false = {
        "in": norm.cdf((norm.ppf(recall) - shift) / ratio),
        "out": norm.sf(shift + ratio * norm.isf(recall)),
    }
    found = {f"aupr_{name}": float(np.trapezoid(recall / (recall + each), recall)) for name, each in false.items()}
    found |= {f"fpr95_{name}": float(np.interp(0.95, recall, each)) for name, each in false.items()}
    return found | {"auroc": auroc}


def sample(auroc: float, ratio: float, n: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Scores of n examples of either class."""
    shift = float(np.hypot(1, ratio) * norm.ppf(auroc))
    return random.normal(0, 1, n), random.normal(shift, ratio, n)


def measure(runs: int, resamples: int = 200) -> list[dict[str, Any]]:
    """A row for each metric, number of examples, ratio of deviations and AUROC."""
    rows = []
    for n in (200, 1000):
        for ratio in (1.0, 2.0):
            for auroc in TRUTHS:
                random = np.random.default_rng([n, round(10 * ratio), round(1e4 * auroc)])
                expected = truth(auroc, ratio)
                covered, tried = dict.fromkeys(expected, 0), dict.fromkeys(expected, 0)
                few = runs if n == 200 else runs // 3
                for trial in range(5 * few):
                    whole = trial < few
                    found = detection_metrics(
                        *sample(auroc, ratio, n, random), trial, resamples=resamples if whole else 2
                    )
                    for name in expected if whole else ("auroc",):
                        interval = found[name].interval
                        assert interval is not None
                        tried[name] += 1
                        covered[name] += interval.low <= expected[name] <= interval.high
                for name in expected:
                    chance = wilson(covered[name], tried[name])
                    rows.append(
                        {
                            "metric": name, "n": n, "ratio": ratio, "auroc": auroc, "truth": expected[name],
                            "coverage": covered[name] / tried[name], "samples": tried[name],
                            "interval": [chance.low, chance.high],
                        }
                    )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = measure(arguments.runs)
    table = Table(title="Coverage of 95% intervals, in %", title_justify="left")
    table.add_column("metric, n, ratio of deviations")
    for auroc in TRUTHS:
        table.add_column(f"AUROC {auroc:g}")
    for key in dict.fromkeys((row["metric"], row["n"], row["ratio"]) for row in rows):
        own = [row["coverage"] for row in rows if (row["metric"], row["n"], row["ratio"]) == key]
        table.add_row(", ".join(map(str, key)), *(f"{100 * each:.1f}{'' if each >= BAR else ' *'}" for each in own))
    Console(width=120).print(table)
    if arguments.out is not None:
        kept = {"runs": arguments.runs, "bar": BAR, "rows": rows, "provenance": provenance.collect()}
        files.write_json(arguments.out, kept)


if __name__ == "__main__":
    main()
