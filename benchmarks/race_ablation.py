"""What each part of the race is worth: robust examples left and example-passes spent, part by part.

    python -m benchmarks.race_ablation [--n 500] [--models trained-53 ...] [--out results/benchmarks/race_ablation.json]

Each row changes one option of the race (isthmus.attacks.race). Counts are exact; seconds are left out, since passes
tell and this may run beside other work. Written row by row; rows that are there already are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.attack_models import RECIPES, build, test_images
from benchmarks.attacks import radius
from isthmus.attacks import robust_accuracy
from isthmus.core import files

FIRST, SECOND, LAST = (0.3, 3, 10), (0.15, 3, 30), (0.1, 9, 100)

ROWS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no run retires": {"patience": 1e9},
    "retire at once the last window's pace": {"patience": 1.0},
    "first run of 5 steps": {"ce_steps": 5},
    "first run of 20 steps": {"ce_steps": 20},
    "first run of 100 steps": {"ce_steps": 100},
    "no second round": {"rounds": (FIRST, LAST)},
    "no last round": {"rounds": (FIRST, SECOND)},
    "last round on the nearest twentieth": {"rounds": (FIRST, SECOND, (0.05, 9, 100))},
    "last round towards three classes": {"rounds": (FIRST, SECOND, (0.1, 3, 100))},
    "last round twice": {"rounds": (FIRST, SECOND, LAST, LAST)},
    "all rounds on twice as many": {"rounds": ((0.6, 3, 10), (0.3, 3, 30), (0.2, 9, 100))},
    "all rounds on all": {"rounds": ((1.0, 3, 10), (1.0, 3, 30), (1.0, 9, 100))},
    "Square on the nearest tenth": {"near": 0.1},
    "no sample": {"drawn": 0},
}


def measure(name: str, options: dict[str, Any], n: int) -> dict[str, Any]:
    images, labels = test_images(name, n)
    result = robust_accuracy(build(name), images, labels, radius(name), [{"name": "race", **options}])
    return {
        "n": n,
        "left": int(result.robust.sum()),
        "by_attack": {label: round(share * n) for label, share in result.by_attack.items()},
        "forward": result.forward_passes,
        "backward": result.backward_passes,
        "date": date.today().isoformat(),
    }


def show(results: dict[str, Any]) -> None:
    models = list(results["models"])
    table = Table(title="The race, part by part: examples left (forward + backward example-passes, thousands)")
    for column in ("row", *models):
        table.add_column(column, justify="left" if column == "row" else "right")
    for row in ROWS:
        cells = []
        for name in models:
            found = results["models"][name].get(row)
            cells.append(
                f"{found['left']} ({found['forward'] / 1e3:.0f} + {found['backward'] / 1e3:.0f})" if found else ""
            )
        table.add_row(row, *cells)
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(RECIPES), default=["trained-53", "trained-74", "mnist-03"])
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/race_ablation.json"))
    given = parser.parse_args()
    results = json.loads(given.out.read_text()) if given.out.exists() else {"models": {}}
    results["command"] = "python -m benchmarks.race_ablation " + " ".join(sys.argv[1:])
    for row, options in ROWS.items():
        for name in given.models:
            found = results["models"].setdefault(name, {})
            if row not in found or found[row]["n"] != given.n:
                found[row] = measure(name, options, given.n)
                files.write_json(given.out, results)
    show(results)


if __name__ == "__main__":
    main()
