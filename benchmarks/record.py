"""Keep the numbers of a finished run: one small JSON from its run folder, with the commands that made it.

    python -m benchmarks.record runs/mnist-vib --out results/mnist-vib.json --command "isthmus train ..." ...

Holds the resolved recipe, data fingerprint, result, where and when it ran, and the metrics of its audit with n and
intervals; no arrays and no weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from isthmus.core import files, results
from isthmus.training.run import Run


def collect(run: Run, commands: list[str]) -> dict[str, Any]:
    info = run.info()
    audit = run.path / "audit"
    found = {"commands": commands, **{key: info[key] for key in ("recipe", "data", "result", "starts")}}
    if audit.is_dir():
        record = results.load_record(audit)
        found["audit"] = {
            "n": record.n,
            "seed": record.seed,
            "settings": record.settings,
            "provenance": record.provenance,
            "checks": {name: _summary(audit, name) for name in results.saved_checks(audit)},
        }
    return found


def _summary(audit: Path, name: str) -> dict[str, Any]:
    result = results.load_result(audit, name)
    kept = result.model_copy(update={"details": {}, "arrays": {}}).plain()
    return {key: kept[key] for key in ("status", "reason", "metrics", "seconds")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--command", action="append", default=[], help="a command that made the run; repeatable")
    given = parser.parse_args()
    files.write_json(given.out, collect(Run(given.run), given.command))


if __name__ == "__main__":
    main()
