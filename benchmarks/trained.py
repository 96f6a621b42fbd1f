"""What training left in several run folders, as one small JSON: for runs of a study that were never attacked.

    python -m benchmarks.trained runs/studies/models/fashion_mnist-* --out results/ceb/fashion/trained.json \
        --command "isthmus study ceb/fashion ..."
    python -m benchmarks.trained runs/studies/models/*-random-labels-* --windows --out ... --command "..."

Unfinished runs are left out, but with ``--windows``, which is about the way there: accuracy on the training batches of
every ``training.log_every`` steps, each before the step that learns from it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from isthmus.core import files
from isthmus.training.run import ENDED, Run

KEPT = (
    "test_accuracy",
    "collapsed",
    "rate_lower_max",
    "epoch_accuracy",
    "epoch_ce",
    "epoch_rate",
    "epoch_residual",
    "epoch_rate_lower",
    "epoch_rate_upper",
    "epoch_i_yz_lower",
)


def collect(run: Run) -> dict[str, Any]:
    info = run.info()
    recipe, result = info["recipe"], info["result"]
    return {
        "objective": recipe["objective"]["name"],
        "rho": recipe["objective"].get("rho"),
        "seed": recipe["seed"],
        "epochs": recipe["training"]["epochs"],
        "tested": info["data"]["test"],
        **{name: result[name] for name in KEPT if name in result},
    }


def windows(run: Run) -> dict[str, Any]:
    recipe = run.recipe
    accuracies = [round(line["accuracy"], 4) for line in run.metrics() if "accuracy" in line]
    known = {"objective": recipe.objective.name, "rho": getattr(recipe.objective, "rho", None), "seed": recipe.seed}
    return {**known, "status": run.info()["status"], "steps": recipe.training.log_every, "accuracy": accuracies}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--command", default="", help="the command that made the runs")
    parser.add_argument("--windows", action="store_true", help="accuracy on the way, instead of what is left")
    given = parser.parse_args()
    runs = [Run(path) for path in given.runs if (path / "run.json").exists()]
    done = [run for run in runs if given.windows or run.info()["status"] in ENDED]
    found = [windows(run) if given.windows else collect(run) for run in done]
    rows = sorted(found, key=lambda row: (row["objective"], row["rho"] or 0.0, row["seed"]))
    files.write_json(given.out, {"command": given.command, "provenance": done[0].info()["starts"][-1], "runs": rows})
    print(f"{len(rows)} runs of {len(given.runs)}")


if __name__ == "__main__":
    main()
