"""What is lost where things go wrong: a kill at any moment, a full disk, damaged files, a clock that goes backwards,
no memory for a batch, two processes with one folder.

    make faults
    python -m benchmarks.faults [--moments 20] [--only kill,disk,damage,clock,memory,twice] [--out results/faults.json]

Training, an attack, an audit and a study are each run once undisturbed, as ``isthmus`` is from a shell. Then each is
disturbed, called again by the same command, and its answer compared: weights bit by bit, every number of an audit, an
attack and a study. ``lost`` counts answers that are not the same, ``tracebacks`` errors that are not a sentence, and
``said`` those that are. Memory gives out at a chosen layer's pass, as torch says it on a CPU; what goes on with half
the batch may then round otherwise, so numbers count as the same up to 1e-3 of their size.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from isthmus.attacks.result import RobustResult
from isthmus.core import files, provenance
from isthmus.core.errors import FileError
from isthmus.training import checkpoints
from isthmus.training.run import Run

RECIPE = {
    "name": "digits-ceb",
    "data": {"name": "digits", "train_limit": 600},
    "model": {"backbone": {"name": "mlp", "hidden": [64]}, "dim": 4},
    "objective": "ceb",
    "training": {"epochs": 12, "batch_size": 50, "log_every": 5, "checkpoint_every": 5},
}
USER_ERROR = 2  # the exit code of an error that is said in a sentence
PATIENCE = 300.0  # seconds that a command may take


@dataclass(frozen=True)
class Verb:
    """Something long that people do.

    Attributes:
        arguments: of ``isthmus``, where ``{out}`` is the folder of its results, ``{run}`` a trained run,
            ``{recipe}`` its recipe.
        answer: from that folder to what must not change.
    """

    arguments: tuple[str, ...]
    answer: Callable[[Path], Any]

    def call(self, out: Path, run: Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.command(out, run),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            env=os.environ | options.pop("env", {}),
            **options,
        )

    def command(self, out: Path, run: Path) -> list[str]:
        """As a shell would have it."""
        filled = [argument.format(out=out, run=run, recipe=run.parent / "recipe.json") for argument in self.arguments]
        return [sys.executable, "-m", "isthmus", *filled]


def weights(out: Path) -> Any:
    state = Run(out).load().state_dict()
    info = files.read_json(out / "run.json")
    return [info["status"], info["result"], checkpoints.digest(state)]


def checks(out: Path) -> Any:
    found = {}
    for path in sorted((out / "audit").glob("*.json")):
        content = files.read_json(path)
        found[path.stem] = [content.get("metrics"), content.get("arrays_hash"), content.get("status")]
    return found


def witnesses(out: Path) -> Any:
    result = RobustResult.load(out / "witnesses.safetensors")
    return [result.accuracy, result.broken.tolist(), result.adversarial.nan_to_num().sum().item(), result.complete]


def experiments(out: Path) -> Any:
    (record,) = (out / "rate-distortion" / "table-1").glob("*.json")
    return files.read_json(record)["experiments"]


VERBS: Mapping[str, Verb] = {
    "train": Verb(("train", "{recipe}", "--out", "{out}", "-q"), weights),
    "attack": Verb(
        (
            *("attack", "{run}", "--threat", "linf:0.1", "--n", "60", "--suite", "pgd:100,square", "-q"),
            *("--out", "{out}/witnesses.safetensors", "--force"),  # a finished result is not overwritten otherwise
        ),
        witnesses,
    ),
    "audit": Verb(
        (
            *("audit", "{run}", "--threat", "linf:0.1", "--n", "60", "-q", "--out", "{out}"),
            *("--checks", "accuracy,robustness,calibration,information"),
        ),
        checks,
    ),
    "study": Verb(
        (
            *("study", "rate-distortion/table-1", "--scale", "tiny", "seeds=1", "training.epochs=6", "-q"),
            *("weight_decay=0.01", "--out", "{out}"),
        ),
        experiments,
    ),
}


@dataclass
class Row:
    """What was tried with one verb, and what came of it."""

    fault: str
    verb: str
    tried: int = 0
    lost: int = 0
    tracebacks: int = 0
    said: int = 0
    notes: tuple[str, ...] = ()

    def note(self, text: str) -> None:
        """Something that should not be."""
        self.notes = (*self.notes, " ".join(text.split())[:300])

    def judge(
        self,
        verb: Verb,
        out: Path,
        expected: Any,
        ended: subprocess.CompletedProcess[str],
        what: str,
        tolerance: float = 0.0,
    ) -> None:
        """After the command was called again, and should have come to its end."""
        if "Traceback" in ended.stderr:
            self.tracebacks += 1
            self.note(f"{what}: {ended.stderr[-300:]}")
        if ended.returncode not in (0, 3, 4) or not same(verb.answer(out), expected, tolerance):
            self.lost += 1
            self.note(f"{what}: exit code {ended.returncode}, {ended.stderr[-200:]}")


def same(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two answers are the same; with a tolerance, what is no number may differ where numbers say the same."""
    if tolerance == 0.0:
        return bool(one == other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key], tolerance) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    return bool(one == other) or isinstance(one, str)  # a hash of numbers


def kills(name: str, verb: Verb, run: Path, whole: Path, seconds: float, moments: int, seed: int = 0) -> Row:
    """SIGKILL at random moments, each time followed by the same command."""
    row, draw = Row("killed", name), random.Random(seed)
    for _ in range(moments):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            process = subprocess.Popen(verb.command(out, run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            moment = draw.uniform(0.0, seconds)
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            row.tried += 1
            row.judge(verb, out, verb.answer(whole), verb.call(out, run), f"killed after {moment:.2f} s")
    return row


@contextmanager
def small_disk(kilobytes: int) -> Iterator[Path]:
    """A file system in memory of that size. Needs root."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder]
        subprocess.run(mount, check=True, capture_output=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def full_disks(name: str, verb: Verb, run: Path, whole: Path, sizes: int) -> Row:
    """Disks that are full after more and more of what the verb writes; then there is space, and it is called again."""
    row = Row("disk full", name)
    needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file()) // 1024
    for number in range(sizes):
        size = 4 + (needed * (2 * number + 1)) // (2 * sizes)
        try:
            with small_disk(size) as disk:
                out = disk / "out"
                ended = verb.call(out, run)
                row.tried += 1
                row.said += ended.returncode == USER_ERROR and "No space left" in ended.stderr
                if "Traceback" in ended.stderr:
                    row.tracebacks += 1
                    row.note(f"{size} kB: {ended.stderr[-300:]}")
                subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True, capture_output=True)
                row.judge(verb, out, verb.answer(whole), verb.call(out, run), f"{size} kB")
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            row.note(f"not tried, since no file system could be mounted here ({error})")
            break
    return row


def readable(verb: Verb, out: Path) -> bool:
    """Whether the answer can be read; an error in a sentence says why not, and any other is a fault of ours."""
    try:
        verb.answer(out)
    except FileError:
        return False
    return True


def damages(name: str, verb: Verb, run: Path, whole: Path, seed: int = 0) -> Row:
    """Every file that the verb left, cut in half or with a flipped bit; then the same command.

    It may make again what was damaged. Or it says so and stops, or whoever reads the file does: then the file is
    deleted, as they ask, and the command called again.
    """
    row, draw = Row("file damaged", name), random.Random(seed)
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file() and path.stat().st_size)
    kept = [path for path in names if path.suffix in (".json", ".npz", ".safetensors")]
    for path in kept:
        for damage in ("cut", "flipped"):
            with tempfile.TemporaryDirectory() as folder:
                out = Path(shutil.copytree(whole, Path(folder) / "out"))
                content = bytearray((out / path).read_bytes())
                if damage == "cut":
                    del content[len(content) // 2 :]
                else:
                    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
                (out / path).write_bytes(content)
                ended = verb.call(out, run)
                row.tried += 1
                what = f"{path} {damage}"
                if "Traceback" in ended.stderr:
                    row.tracebacks += 1
                    row.note(f"{what}: {ended.stderr[-300:]}")
                if ended.returncode == USER_ERROR or not readable(verb, out):
                    row.said += 1
                    (out / path).unlink()
                    ended = verb.call(out, run)
                row.judge(verb, out, verb.answer(whole), ended, what)
    return row


def _patched(folder: str, code: str) -> dict[str, str]:
    """An environment in which every Python runs some code before anything else."""
    Path(folder, "sitecustomize.py").write_text(code, encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])}


NO_MEMORY = """
import itertools, torch
passes, forward = itertools.count(), torch.nn.Linear.forward
def failing(self, x):
    if next(passes) == {at}:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
                           "you tried to allocate 8589934592 bytes. Error code 12 (Cannot allocate memory)")
    return forward(self, x)
torch.nn.Linear.forward = failing
"""


def memory(name: str, verb: Verb, run: Path, whole: Path, moments: int, seed: int = 0) -> Row:
    """No memory for one pass of one layer, early, late or in between; then the same command with memory."""
    row, draw = Row("no memory", name), random.Random(seed)
    for _ in range(moments):
        at = round(10 ** draw.uniform(0.0, 3.5))
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            ended = verb.call(out, run, env=_patched(folder, NO_MEMORY.format(at=at)))
            row.tried += 1
            row.said += ended.returncode == USER_ERROR and "memory" in ended.stderr
            if "Traceback" in ended.stderr or ended.returncode == 1:
                row.tracebacks += 1
                row.note(f"pass {at}: {ended.stderr[-300:]}")
            row.judge(verb, out, verb.answer(whole), verb.call(out, run), f"pass {at}", tolerance=1e-3)
    return row


def twice(name: str, verb: Verb, run: Path, whole: Path) -> Row:
    """Two processes with the same folder at once: one of them may refuse, and then the same command."""
    row = Row("two at once", name)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        pair = [
            subprocess.Popen(verb.command(out, run), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for process in pair:
            said = process.communicate(timeout=2 * PATIENCE)[1]
            row.tried += 1
            row.said += process.returncode == USER_ERROR and "nother process" in said
            if "Traceback" in said or process.returncode == 1:
                row.tracebacks += 1
                row.note(said[-300:])
        row.judge(verb, out, verb.answer(whole), verb.call(out, run), "two at once")
    return row


def clocks(name: str, verb: Verb, run: Path, whole: Path) -> Row:
    """Half of it now, the rest under a clock that is a day behind."""
    row = Row("clock a day back", name)
    with tempfile.TemporaryDirectory() as folder:
        late = _patched(folder, "import time\nnow = time.time\ntime.time = lambda: now() - 86400.0\n")
        out = Path(folder) / "out"
        process = subprocess.Popen(verb.command(out, run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(4.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        row.tried += 1
        ended = verb.call(out, run, env=late)
        row.judge(verb, out, verb.answer(whole), ended, "a day back")
    return row


def measure(moments: int, sizes: int, only: tuple[str, ...], verbs: tuple[str, ...]) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "recipe.json").write_text(json.dumps(RECIPE), encoding="utf-8")
        run = root / "run"
        if set(verbs) - {"train"}:
            trained = VERBS["train"].call(run, run)
            if trained.returncode:
                raise SystemExit(trained.stderr)
        for name in verbs:
            verb, whole = VERBS[name], root / f"whole-{name}"
            started = time.monotonic()
            ended = verb.call(whole, run)
            seconds = time.monotonic() - started
            if ended.returncode not in (0, 3, 4):
                raise SystemExit(ended.stderr)
            given = (name, verb, run, whole)
            ways: dict[str, Callable[[], Row]] = {
                "kill": partial(kills, *given, seconds, moments),
                "disk": partial(full_disks, *given, sizes),
                "damage": partial(damages, *given),
                "clock": partial(clocks, *given),
                "memory": partial(memory, *given, sizes),
                "twice": partial(twice, *given),
            }
            for way in only:
                rows.append(ways[way]())
                show(rows[-1])
    return rows


def show(row: Row) -> None:
    print(
        f"{row.fault:18} {row.verb:7} tried {row.tried:3}, "
        f"lost {row.lost}, tracebacks {row.tracebacks}, said {row.said}"
    )
    for note in row.notes:
        print(f"    {note}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--sizes", type=int, default=8)
    parser.add_argument("--only", default="kill,disk,damage,clock,memory,twice")
    parser.add_argument("--verbs", default=",".join(VERBS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows = measure(given.moments, given.sizes, tuple(given.only.split(",")), tuple(given.verbs.split(",")))
    if given.out:
        command = f"python -m benchmarks.faults --moments {given.moments} --sizes {given.sizes} --only {given.only}"
        content = {"command": command, "rows": [vars(row) for row in rows], "provenance": provenance.collect()}
        files.write_json(given.out, content)
    if any(row.lost or row.tracebacks for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
