"""What ``isthmus attack`` and ``isthmus verify`` do: attack a named classifier, keep witnesses, check them again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from torch import Tensor

from isthmus.attacks.api import expected_queries, ready, robust_accuracy
from isthmus.attacks.engine.early_stopping import forget
from isthmus.attacks.engine.evaluate import Interrupted
from isthmus.attacks.engine.evaluation import Progress as Tell
from isthmus.attacks.engine.evaluation import Snapshot
from isthmus.attacks.engine.inputs import examples
from isthmus.attacks.result import RobustResult
from isthmus.attacks.result_file import ShardFacts
from isthmus.attacks.shards import merge as merge_shards
from isthmus.attacks.shards import parse_shard, rows_of, shard_facts
from isthmus.attacks.threats import Threat, parse
from isthmus.attacks.verify import Verification
from isthmus.attacks.verify import verify as recompute
from isthmus.audits.target import ModelSource, Target, named_model, target_of
from isthmus.checks.accuracy import MIN_IMAGES
from isthmus.checks.diagnosis import ADVERSARIAL
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError, FileError, printable
from isthmus.core.files import exists, sha256
from isthmus.core.randomness import example_keys
from isthmus.core.types import Interval, Metric
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.metrics import wilson

_LONGEST = 150  # characters of a file name that come from options


def attack(
    run: Path | None,
    *,
    model: str | None = None,
    weights: Path | None = None,
    data: str | None = None,
    threat: str = "linf:0.1",
    suite: str = "standard",
    count: int | None = None,
    batch_size: int | None = None,
    jobs: int = 1,
    until: str | None = None,
    seed: int = 0,
    bf16: bool = False,
    out: Path | None = None,
    force: bool = False,
    max_queries: int | None = None,
    shard: str | None = None,
    show_progress: bool = True,
) -> tuple[RobustResult, Path]:
    """Attack a run folder, or a model named ``package.module:function``, and write what was found to a file.

    While it works the evaluation is kept in a file beside that (see :func:`checkpoint_of`), from which the same command
    goes on after it was interrupted or killed.

    Args:
        run, model, weights, data, count: as for :func:`isthmus.audits.target.audit_run`.
        threat: norm and ε, such as "linf:8/255".
        suite: a suite, or attacks with commas between them: "fgsm,pgd:100".
        batch_size, jobs, seed, bf16, max_queries: see :func:`isthmus.robust_accuracy`.
        until: stop where the 95% interval is no wider than ± this share: "1%"; see :func:`parse_share`.
        out: the file; where None, named after suite, threat and number of images (see :func:`file_name`), in the run or
            in ``runs/<model>-<weights>``.
        shard: attack only this part of the images, such as "3/32"; see :mod:`isthmus.attacks.shards`.
        force: overwrite the file. Without it only the unfinished result of this evaluation is.
        show_progress: show how far it is where stderr is a terminal, and before the start say on stderr about how many
            passes there may be.

    Returns:
        The result, and the path it was written to. After Ctrl-C, or where ``max_queries`` ended it, the result is not
        ``complete``.

    Raises:
        IsthmusError: anything named that does not exist or does not fit, or a file that cannot be written.
        KeyboardInterrupt: Ctrl-C before anything was known.
    """
    ball, half_width = parse(threat), None if until is None else parse_share(until)
    if out is not None and os.path.isdir(out):
        raise ConfigError(f"--out names a file; {out} is a folder.")
    target = target_of(ModelSource(run, model, weights, data, count))
    path = out or target.folder / file_name(suite, str(ball), len(target.labels), shard)
    part = None if shard is None else _part(shard, target, ball, suite, seed, bf16)
    if part is not None:
        if until is not None or max_queries is not None:
            raise ConfigError(
                "--until and --max-queries look at all images; they cannot be given together with --shard."
            )
        rows = rows_of(part.number, part.count, part.n)
        chosen = {name: getattr(target, name)[rows] for name in ("images", "labels", "indices")}
        target = replace(target, **chosen)
    if not force:
        _check_free(path)
    if show_progress:
        classes, images = int(target.labels.max()) + 1, len(target.labels)
        most = expected_queries(parse_suite(suite), ball, max(classes, 2)) * images
        limit = "" if max_queries is None else f"; --max-queries ends it at {max_queries:,}"
        said = f"about {most:,} example-passes if all {images:,} images withstand{limit}"
        Console(stderr=True).print(said, highlight=False, soft_wrap=True)
    with _board(target.name, show_progress) as tell:
        try:
            result = robust_accuracy(
                target.model,
                target.images,
                target.labels,
                ball,
                parse_suite(suite),
                batch_size,
                seed,
                jobs,
                indices=target.indices,
                until=half_width,
                bf16=bf16,
                save_to=checkpoint_of(path),
                progress=tell,
                max_queries=max_queries,
            )
        except Interrupted as stop:
            result = stop.result
    result = replace(result, shard=part)
    if not result.complete:
        partial = _beside_a_complete_one(path)
        result.save(partial)
        return result, partial
    result.save(path)
    forget(checkpoint_of(path))
    return result, path


def _part(shard: str, target: Target, threat: Threat, suite: str, seed: int, bf16: bool) -> ShardFacts:
    number, count = parse_shard(shard)
    every = examples(target.images, target.labels, seed=seed, indices=target.indices)
    return shard_facts(number, count, target.model, every, threat, ready(parse_suite(suite), threat.name), bf16)


def merge(files: Sequence[Path], out: Path, force: bool = False) -> RobustResult:
    """Merge the files of all shards of an evaluation into one.

    Raises:
        ConfigError: ``out`` exists; ``force`` overwrites it.
        FileError: see :func:`isthmus.attacks.shards.merge`.
    """
    if not force:
        _check_free(out)
    result = merge_shards(files)
    result.save(out)
    return result


def file_name(suite: str, threat: str, n: int, shard: str | None = None) -> str:
    """Name of a result's file, such as ``attack-fast-linf-8_255-n1000.safetensors``."""
    given = f"{suite}-{threat}".replace(" ", "").replace(",", "+").replace("/", "_").replace(":", "-")
    if len(given) > _LONGEST:
        given = f"{given[:_LONGEST]}-{sha256(given.encode())[:8]}"
    part = "" if shard is None else "-shard-{}-of-{}".format(*parse_shard(shard))
    return f"attack-{given}-n{n}{part}.safetensors"


def _check_free(path: Path) -> None:
    """Whether a result may go to this path.

    Raises:
        ConfigError: there is a file, and it is not the unfinished result of an evaluation that can be resumed.
    """
    if not exists(path):
        return
    if exists(checkpoint_of(path)):
        with suppress(FileError):
            if not RobustResult.load(path).complete:
                return
    raise ConfigError(
        f"{path} exists already, and an evaluation is not overwritten: name another file with --out, add --force to "
        f"replace it, or read it with `isthmus verify {path}`."
    )


def _beside_a_complete_one(path: Path) -> Path:
    """Where a partial result goes: not over a complete one."""
    try:
        complete = RobustResult.load(path).complete
    except FileError:
        return path
    return path.with_name(f"{path.stem}.partial{path.suffix}") if complete else path


def checkpoint_of(path: Path) -> Path:
    """Where an evaluation is kept while it runs whose result goes to ``path``."""
    return path.with_name(f"{path.stem}.evaluation{path.suffix}")


def verify(
    witnesses: Path,
    run: Path | None,
    *,
    model: str | None = None,
    weights: Path | None = None,
    data: str | None = None,
    threat: str | None = None,
    count: int | None = None,
) -> Verification:
    """Recompute what a file of witnesses claims, with a named model; and compare its originals with the data set.

    A file may hold fewer examples or another ε than its reader expects; ``threat`` and ``count`` refuse such a file.

    Args:
        witnesses: what :func:`attack` or :meth:`RobustResult.save` wrote; or the folder of an
            audit, or of a run with one, which is then the run.
        run, model, weights: the model.
        data: name of the data; the run's own where None. With a foreign model and None, originals are not compared.
        threat: what the file must be about, such as "linf:8/255"; whatever it says where None.
        count: how many examples it must hold; whatever it holds where None.

    Raises:
        FileError: the file is about another threat or another number of examples.
        IsthmusError: anything named that does not exist or does not fit.
    """
    if witnesses.is_dir():
        run = witnesses if run is None and model is None and (witnesses / "run.json").exists() else run
        witnesses = next(
            (f for f in (witnesses / "audit" / ADVERSARIAL, witnesses / ADVERSARIAL) if f.exists()), witnesses
        )
    claim = RobustResult.load(witnesses)
    if threat is not None and parse(threat) != claim.threat:
        raise FileError(f"{witnesses} is about {claim.threat}, and --threat {threat} is to be verified.")
    if count is not None and count != len(claim):
        raise FileError(f"{witnesses} holds {len(claim):,} examples, and --n {count} are to be verified.")
    subject = named_model(ModelSource(run, model, weights, data))
    images, labels = (None, None) if subject.data is None else _examples_of(claim, subject.data)
    return recompute(witnesses, subject.model, images=images, labels=labels)


def _examples_of(claim: RobustResult, data: Component) -> tuple[Tensor, Tensor]:
    """The images of a data set's test split that a result's keys name, in its order; else simply the first ones."""
    test = load(data).test
    of = {key: index for index, key in enumerate(example_keys(claim.seed, torch.arange(len(test))).tolist())}
    found = [of.get(key) for key in claim.keys.tolist()]
    known = [index for index in found if index is not None]
    rows = torch.tensor(known) if len(known) == len(found) else torch.arange(min(len(found), len(test)))
    chosen = test.select(rows)
    return as_float(chosen.images), chosen.labels


# --- what options mean ---


def parse_suite(text: str) -> str | list[str]:
    """A suite or an attack by its name, or a list of them: ``fgsm,pgd:100``."""
    names = [name.strip() for name in text.split(",")]
    return names[0] if len(names) == 1 else names


def parse_share(text: str) -> float:
    """A half-width, written ``1%``, ``±1%``, ``0.01`` or ``±0.01``.

    Raises:
        ConfigError: anything else, or a share that is not between 0 and 1.
    """
    written = text.strip().removeprefix("±").removeprefix("+-").strip()
    number, percent, rest = written.partition("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = -1.0
    if rest or not 0 < share < 1:
        raise ConfigError(
            f"The half-width of an interval is written 1% or 0.01, more than 0 and below 1; got {text!r}."
        )
    return share


def above_chance(result: RobustResult) -> bool:
    """Whether the clean accuracy is above that of the best constant answer, by the lower end of its interval."""
    labels = result.examples.labels
    counts = labels.bincount()
    if len(labels) < MIN_IMAGES or int(counts.max()) == len(labels):
        return True  # too few, or too alike, to say
    return wilson(int(result.correct.sum()), len(labels)).low > int(counts.max()) / len(labels)


# --- what is shown ---


def percent(share: float) -> str:
    """A share in percent, to a hundredth."""
    return f"{100 * share:.2f}%"


def between(interval: Interval) -> str:
    """An interval of shares in percent."""
    return f"[{100 * interval.low:.2f}, {100 * interval.high:.2f}]"


def outcome(result: RobustResult) -> tuple[Table, list[str]]:
    """A table of what each attack did, and the lines below it."""
    table = Table()
    table.add_column("attack")
    for heading in ("accuracy left", "broke", "example-passes"):
        table.add_column(heading, justify="right")
    broke = [int((result.broken & (result.stage == stage)).sum()) for stage in range(len(result.attacks))]
    for (label, left), count, passes in zip(result.by_attack.items(), broke, result.spent, strict=True):
        table.add_row(Text(printable(label)), percent(left), f"{count:,}", f"{passes:,}")
    return table, list(_lines(result))


def _lines(result: RobustResult) -> Iterator[str]:
    yield (
        f"robust accuracy: {percent(result.accuracy)}, 95% interval {between(result.interval)}, "
        f"n = {len(result):,}, {result.threat}"
    )
    if result.random:
        yield "the model answers at random; robust accuracy is that of its average prediction over many draws"
        for name, metric in (
            ("one evaluation, the papers' rule", result.one_evaluation),
            ("99% confidence", result.confident),
        ):
            yield f"  {name}: {_measured(metric)}"
    passes = f"{result.forward_passes:,} forward, {result.backward_passes:,} backward"
    yield f"example-passes: {result.forward_passes + result.backward_passes:,} ({passes})"
    if result.verified:
        checked = "the average was read" if result.random else "adversarial examples were verified"
        yield f"{checked} at the end, in {result.verification_passes:,} of these passes"
    yield from (f"note: {warning}" for warning in result.warnings)
    if not result.complete:
        why = "the budget of queries is spent" if result.exhausted else "interrupted"
        yield f"{why}: what stands has not met every attack; robust accuracy is at most this"


def _measured(metric: Metric) -> str:
    """A share with its interval, or why there is none."""
    if metric.value is None or metric.interval is None:
        return metric.note
    return f"{percent(metric.value)}, 95% interval {between(metric.interval)}"


def account(done: Verification) -> list[str]:
    """What a verification found, in lines."""
    lines = [
        f"claimed: robust accuracy {percent(done.claimed)}, n = {done.n:,}, {done.threat}",
        f"recomputed: robust accuracy {percent(done.verified)}, from {done.proven:,} of "
        f"{done.broken:,} broken examples; largest ‖δ‖ {done.largest:.6g}",
    ]
    if not done.complete:
        lines.append("interrupted: the evaluation was not over when this was written")
    compared = {True: "those of the data set, bit for bit", False: "NOT those of the data set"}
    lines.append(f"examples: {compared.get(done.examples_match, 'not compared with a data set')}")  # type: ignore[arg-type]
    if done.intact is False:
        lines.append("checksum: the file is NOT as it was written")
    for reason, count in done.reasons.items():
        rows = [row for row, why in done.failures.items() if why == reason]
        lines.append(f"{count:,} × {reason} (rows {_some(rows)})")
    return lines


def verified(done: Verification) -> str:
    """What a verification that succeeded has shown, and what not."""
    return (
        f"verified: robust accuracy is at most {percent(done.verified)} on these {done.n:,} images "
        f"(SHA-256 {done.examples[:16]}…) at {done.threat}; the attacks that the file names are not verified "
        f"({', '.join(done.attacks)})"
    )


def _some(rows: Sequence[int], most: int = 8) -> str:
    return ", ".join(map(str, rows[:most])) + (", …" if len(rows) > most else "")


@contextmanager
def _board(name: str, shown: bool) -> Iterator[Tell | None]:
    """Robust accuracy so far on stderr, attack by attack, where that is a terminal."""
    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield None
        return
    board = Board(name)
    with Live(board, console=console, transient=True, refresh_per_second=4):
        yield board.tell


class Board:
    """What is shown while attacks run: a line for each, with the accuracy that it has left so far, and a bar."""

    def __init__(self, name: str) -> None:
        self.seen: dict[str, Snapshot] = {}
        columns = TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.percentage:>3.0f}%")
        self.bar = Progress(*columns, TimeElapsedColumn())
        self.task = self.bar.add_task(name, total=None)

    def tell(self, at: Snapshot) -> None:
        """Take note of how far it is."""
        self.seen[at.attack] = at
        self.bar.update(self.task, completed=at.done, total=at.total)

    def __rich__(self) -> RenderableType:
        lines = Table.grid(padding=(0, 2))
        for label, at in list(self.seen.items()):
            share = at.robust / at.n
            lines.add_row(Text(label), f"{percent(share)} {between(wilson(at.robust, at.n))}", f"of {at.n:,}")
        return Group(lines, self.bar.get_renderable())
