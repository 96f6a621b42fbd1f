"""Evaluations of a named model, kept in a file; and the verification of such a file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from isthmus.attacks.api import expected_queries, robust_accuracy
from isthmus.attacks.engine.evaluation import Interrupted
from isthmus.attacks.engine.evaluation_file import forget
from isthmus.attacks.engine.inputs import examples
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.result import RobustResult
from isthmus.attacks.result_file import ShardFacts
from isthmus.attacks.shards import merge as merge_shards
from isthmus.attacks.shards import parse_shard, rows_of, shard_facts
from isthmus.attacks.suites import stages_of
from isthmus.attacks.threats import Threat, parse
from isthmus.attacks.verify import Verification
from isthmus.attacks.verify import verify as recompute
from isthmus.audits import sanity
from isthmus.audits.classifier import BATCH, adopt
from isthmus.audits.limits import within_memory
from isthmus.audits.sanity import MIN_IMAGES
from isthmus.audits.target import NamedModel, Target
from isthmus.checks.context import Context
from isthmus.checks.diagnosis import ADVERSARIAL
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError, FileError, ModelError
from isthmus.core.files import exists, sha256
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.core.randomness import example_keys
from isthmus.data.images import as_float, check_labels
from isthmus.data.loading import load
from isthmus.metrics import wilson

_LOOKED_AT = 2000  # images that show whether a model is at chance
_LONGEST = 150  # characters of a file name that come from options


def attack(
    target: Target,
    threat: Threat,
    suite: str | list[str],
    path: Path,
    *,
    seed: int = 0,
    options: RunOptions = RunOptions(),
    shard: ShardFacts | None = None,
) -> tuple[RobustResult, Path]:
    """Attack a model and write the result to a file.

    During the evaluation its state is kept in a file beside that (see :func:`checkpoint_of`). To resume an interrupted
    or killed evaluation, call this again.

    Args:
        target: model and images.
        suite: a suite, or names of attacks.
        path: the file; it is overwritten (see :func:`check_free`).
        shard: the part of a larger evaluation that ``target`` is; see :func:`shard_of`.
        seed: see :func:`isthmus.robust_accuracy`.
        options: batch size, jobs, limits and progress; indices and the file are set here.

    Returns:
        The result, and the path that it was written to. After Ctrl-C, or if ``max_queries`` are spent, the result is
        not ``complete``; it then does not replace a complete one.

    Raises:
        IsthmusError: see :func:`isthmus.robust_accuracy`; or the file cannot be written.
        KeyboardInterrupt: Ctrl-C before anything was found.
    """
    options = replace(options, indices=target.indices, save_to=checkpoint_of(path))
    try:
        result = robust_accuracy(target.model, target.images, target.labels, threat, suite, seed=seed, options=options)
    except Interrupted as stop:
        result = stop.result
    result = replace(result, shard=shard)
    if not result.complete:
        path = _beside_a_complete_one(path)
        result.save(path)
        return result, path
    result.save(path)
    forget(checkpoint_of(path))
    return result, path


def expected(target: Target, threat: Threat, suite: str | list[str]) -> int:
    """About how many passes, forward and backward, an evaluation needs if every image is robust."""
    classes = max(int(target.labels.max()) + 1, 2)
    return expected_queries(suite, threat, classes) * len(target.labels)


def check_above_chance(target: Target, threat: Threat, seed: int) -> None:
    """Check, on at most 2,000 of the images, that a model is better than a constant prediction.

    Raises:
        ModelError: it is not; the message names the likely cause.
    """
    model, n = target.model, len(target.labels)
    rows = torch.linspace(0, n - 1, min(n, _LOOKED_AT)).long()
    device, labels = device_of(model, target.images), target.labels[rows]
    images = target.images[rows].to(device)

    def errors(batch_size: int) -> list[str]:
        adopted = adopt(model, images, seed, threat, batch_size)
        check_labels(labels, adopted.num_classes)
        context = Context(
            adopted.model, images, labels.to(device), adopted.num_classes, threat, seed=seed, batch_size=batch_size
        )
        return [caution.text for caution in sanity.cautions(context, probe=False) if caution.level == "error"]

    with preserve_state(model, device, seed):
        found, _ = within_memory(errors, BATCH)
    if found:
        raise ModelError(f"{target.name} is at chance, and no attack was run. {found[0]}")


def above_chance(result: RobustResult) -> bool:
    """Whether the clean accuracy is above that of the best constant prediction, by the lower end of its interval."""
    labels = result.examples.labels
    counts = labels.bincount()
    if len(labels) < MIN_IMAGES or int(counts.max()) == len(labels):
        return True  # too few images, or only one class, to decide
    return wilson(int(result.correct.sum()), len(labels)).low > int(counts.max()) / len(labels)


def shard_of(
    target: Target, shard: str, threat: Threat, suite: str | list[str], seed: int, bf16: bool
) -> tuple[Target, ShardFacts]:
    """One part of a target's images, such as "3/32", and the facts by which parts are merged.

    Raises:
        ConfigError: see :func:`isthmus.attacks.shards.parse_shard` and :func:`isthmus.attacks.shards.shard_facts`.
    """
    number, count = parse_shard(shard)
    every = examples(target.images, target.labels, seed=seed, indices=target.indices)
    facts = shard_facts(number, count, target.model, every, threat, stages_of(suite, threat.name), bf16)
    rows = rows_of(facts.number, facts.count, facts.n)
    images, labels, indices = (column[rows] for column in (target.images, target.labels, target.indices))
    return replace(target, images=images, labels=labels, indices=indices), facts


def merge(files: Sequence[Path], out: Path, force: bool = False) -> RobustResult:
    """Merge the files of all shards of an evaluation into one.

    Raises:
        ConfigError: ``out`` exists; ``force`` overwrites it.
        FileError: see :func:`isthmus.attacks.shards.merge`.
    """
    if not force:
        check_free(out)
    result = merge_shards(files)
    result.save(out)
    return result


def file_name(suite: str, threat: str, n: int, shard: str | None = None) -> str:
    """Default name of a result's file, such as ``attack-fast-linf-8_255-n1000.safetensors``."""
    given = f"{suite}-{threat}".replace(" ", "").replace(",", "+").replace("/", "_").replace(":", "-")
    if len(given) > _LONGEST:
        given = f"{given[:_LONGEST]}-{sha256(given.encode())[:8]}"
    part = "" if shard is None else "-shard-{}-of-{}".format(*parse_shard(shard))
    return f"attack-{given}-n{n}{part}.safetensors"


def check_free(path: Path) -> None:
    """Check that a result may be written to this path.

    Raises:
        ConfigError: the file exists and is not the unfinished result of an evaluation that can be resumed.
    """
    if not exists(path):
        return
    if exists(checkpoint_of(path)):
        with suppress(FileError):
            if not RobustResult.load(path).complete:
                return
    raise ConfigError(
        f"{path} exists already, and a result is not overwritten: name another file with --out, add --force to replace "
        f"it, or read it with `isthmus verify {path}`."
    )


def _beside_a_complete_one(path: Path) -> Path:
    """Path of a partial result, which must not replace a complete one."""
    try:
        complete = RobustResult.load(path).complete
    except FileError:
        return path
    return path.with_name(f"{path.stem}.partial{path.suffix}") if complete else path


def checkpoint_of(path: Path) -> Path:
    """Where the state of a running evaluation is kept whose result goes to ``path``."""
    return path.with_name(f"{path.stem}.evaluation{path.suffix}")


def locate(path: Path, run: Path | None, model: str | None) -> tuple[Path, Path | None]:
    """The result file and run folder that a path means: a file, the folder of an audit, or an audited run."""
    if not path.is_dir():
        return path, run
    if run is None and model is None and (path / "run.json").exists():
        run = path
    candidates = (path / "audit" / ADVERSARIAL, path / ADVERSARIAL)
    return next((file for file in candidates if file.exists()), path), run


def check_claim(path: Path, threat: str | None, count: int | None) -> None:
    """Refuse a result file with fewer examples or another ε than its reader expects.

    Args:
        path: a file that :func:`attack` or :meth:`RobustResult.save` wrote.
        threat: threat that the file must have, such as "linf:8/255"; None for any.
        count: number of examples that it must hold; None for any.

    Raises:
        FileError: the file cannot be read, or has another threat or number of examples.
    """
    claim = RobustResult.load(path)
    if threat is not None and parse(threat) != claim.threat:
        raise FileError(f"{path} is about {claim.threat}, not about --threat {threat}.")
    if count is not None and count != len(claim):
        raise FileError(f"{path} holds {len(claim):,} examples, not --n {count}.")


def verify(path: Path, subject: NamedModel) -> Verification:
    """Recompute a result file's claim with a named model, and compare the original images with the model's data.

    Args:
        path: a file that :func:`attack` or :meth:`RobustResult.save` wrote.
        subject: the model. Original images are compared only if its data is known.

    Raises:
        FileError: the file cannot be read.
    """
    claim = RobustResult.load(path)
    images, labels = (None, None) if subject.data is None else examples_of(claim, subject.data)
    return recompute(path, subject.model, images=images, labels=labels)


def examples_of(claim: RobustResult, data: Component) -> tuple[Tensor, Tensor]:
    """The test images that a result's keys identify, in its order; the first ones if the keys are unknown."""
    test = load(data).test
    rows_of = {key: index for index, key in enumerate(example_keys(claim.seed, torch.arange(len(test))).tolist())}
    found = [rows_of.get(key) for key in claim.keys.tolist()]
    known = [index for index in found if index is not None]
    rows = torch.tensor(known) if len(known) == len(found) else torch.arange(min(len(found), len(test)))
    chosen = test.select(rows)
    return as_float(chosen.images), chosen.labels
