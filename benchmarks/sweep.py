"""A sweep over ρ with two processes against the same sweep with one, command against command. Needs no data mirror.

    python -m benchmarks.sweep [--rounds 3] [--out results/benchmarks/sweep.json]

Ten models on digits (one deterministic, nine CEB), trained and attacked by `isthmus study ceb/fashion --scale tiny`,
each time into an empty folder. Start-up of the processes counts. The one process may use all processors, the two share
them. The commands take turns; the figure is the median over rounds of the ratio of their times.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from isthmus.core import files, provenance
from isthmus.studies.study import StudyRecord

STUDY = "ceb/fashion"
SETTINGS = (
    "seeds=1",
    "families=[ceb]",
    "rhos=[-1,0,0.5,1,1.5,2,3,4,5]",
    "images=200",
    "ensemble_images=100",
    "training.epochs=60",
)
MODELS = 10
BAR = 0.65


def command(jobs: int, out: Path) -> list[str]:
    study = ["study", STUDY, *SETTINGS, "--scale", "tiny", "--jobs", str(jobs), "--out", str(out), "--quiet"]
    return [sys.executable, "-m", "isthmus", *study]


def seconds(jobs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(command(jobs, Path(folder)), check=True, capture_output=True)
        took = time.perf_counter() - started
        record = StudyRecord.load(Path(folder) / STUDY / "tiny.json")
        assert len(record.experiments) == MODELS, record.failures
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/sweep.json"))
    given = parser.parse_args()
    times = [{jobs: seconds(jobs) for jobs in (1, 2)} for _ in range(given.rounds)]
    ratios = [each[2] / each[1] for each in times]
    found = {
        "command": "python -m benchmarks.sweep",
        "sweep": " ".join(command(2, Path("OUT"))[1:]),
        "models": MODELS,
        "seconds": [
            {f"{jobs} process{'es' * (jobs > 1)}": round(took, 2) for jobs, took in each.items()} for each in times
        ],
        "ratio": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios), "bar": BAR},
        "provenance": provenance.collect(),
    }
    files.write_json(given.out, found)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"two processes take {statistics.median(ratios):.2f} of one's time ({spread}; bar {BAR})")


if __name__ == "__main__":
    main()
