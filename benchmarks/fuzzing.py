"""Hostile input at scale: how many cases of each kind were tried, and what came of them.

    make fuzz
    python -m benchmarks.fuzzing [--only test_recipes.py,...] [--out results/fuzzing.json]

Runs the tests of ``tests/fuzzing`` with all cases, newly drawn each time. ``worked`` and ``refused`` (an error in a
sentence, exit code 2 on the command line) are as they should be. Nothing else may occur: a ``traceback``, or a
message that nobody can read; a ``hang``; ``partial state``, files that an input left which was refused; ``code run``
that came with the input.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import hypothesis

from isthmus.core import files, provenance

TESTS = Path(__file__).parent.parent / "tests" / "fuzzing"
SOUND = ("worked", "refused")

Row = dict[str, Any]


def measure(only: list[str]) -> tuple[list[Row], bool]:
    """Cases of each kind by what came of them, and whether all tests passed."""
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts.json"
        targets = [str(TESTS / name) for name in only] or [str(TESTS)]
        options = ("-q", "-p", "no:cacheprovider", "--tb", "short")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *targets],
            env=os.environ | {"HYPOTHESIS_PROFILE": "fresh", "ISTHMUS_FUZZ_COUNTS": str(counts)},
            cwd=TESTS.parent.parent,
            check=False,
        )
        if not counts.exists():
            raise SystemExit("the tests did not come to their end")
        return json.loads(counts.read_text("utf-8")), done.returncode == 0


def summed(rows: list[Row]) -> Row:
    """The last line of the table."""
    return {"kind": "all"} | {name: sum(row[name] for row in rows) for name in rows[0] if name != "kind"}


def show(row: Row) -> None:
    found = ", ".join(f"{name} {count}" for name, count in row.items() if name in SOUND or (name != "kind" and count))
    print(f"{row['kind']:32} {sum(count for name, count in row.items() if name != 'kind'):5} cases: {found}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="files of tests/fuzzing, with commas between them")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    only = given.only.split(",") if given.only else []
    began = time.monotonic()
    rows, passed = measure(only)
    total = summed(rows)
    for row in [*rows, total]:
        show(row)
    if given.out:
        content = {
            "command": " ".join(["python -m benchmarks.fuzzing", *(["--only", given.only] if only else [])]),
            "rows": rows,
            "total": total,
            "cases": sum(count for name, count in total.items() if name != "kind"),
            "passed": passed,
            "seconds": round(time.monotonic() - began),
            "hypothesis": hypothesis.__version__,
            "provenance": provenance.collect(),
        }
        files.write_json(given.out, content)
    if not passed or any(count for name, count in total.items() if name != "kind" and name not in SOUND):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
