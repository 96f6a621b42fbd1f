"""One evaluation in parts that separate commands compute, for job arrays and CI: which images, and the merged result.

Shard k of N has images k, k + N, k + 2N, and so on. What is found about an image depends on its own key, so the merged
result is the unsharded one, up to the model's own rounding. A suite that ranks all images against one another, as
``fast`` does, cannot be sharded this way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from isthmus.attacks.attack import Stage
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.state import fingerprint
from isthmus.attacks.result import RobustResult
from isthmus.attacks.result_file import ShardFacts
from isthmus.attacks.threats import Threat
from isthmus.core import provenance
from isthmus.core.errors import ConfigError, FileError, shown
from isthmus.core.files import sha256


def parse_shard(text: str) -> tuple[int, int]:
    """Number and count of a shard, from text such as ``3/32``.

    Raises:
        ConfigError: anything else, or a number that is not from 1 to the count.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
    number, count = (int(part) for part in found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise ConfigError(f"A shard is written as number/count, from 1/32 to 32/32; got {shown(text)}.")
    return number, count


def rows_of(number: int, count: int, n: int) -> Tensor:
    """Positions of a shard's images among n."""
    return torch.arange(n)[number - 1 :: count]


def shard_facts(
    number: int, count: int, model: nn.Module, examples: Batch, threat: Threat, stages: Sequence[Stage], bf16: bool
) -> ShardFacts:
    """The facts about the whole evaluation in a shard's file.

    Args:
        examples: all of the evaluation, not only those of the shard.

    Raises:
        ConfigError: an attack ranks all images, or there are more shards than images.
    """
    ranking = [stage.label for stage in stages if stage.among is not None]
    if ranking:
        raise ConfigError(
            f"The stages {', '.join(ranking)} rank all images against one another, so that shards would not give the "
            "unsharded result. Name a suite without such stages (standard, ib, rand, or attacks), or share this one "
            "with --jobs."
        )
    if count > len(examples):
        raise ConfigError(f"{len(examples)} images make at most {len(examples)} shards; got --shard {number}/{count}.")
    made = provenance.collect()
    code = {name: made["packages"][name] for name in ("isthmus", "torch")} | {"commit": made["commit"]}
    suite = [[stage.label, stage.attack.model_dump(mode="json")] for stage in stages]
    facts = {
        "model": sha256(type(model).__qualname__.encode(), fingerprint(model.state_dict().values()).encode()),
        "data": data_digest(examples),
        "threat": str(threat),
        "suite": _digest(suite),
        "precision": "bfloat16" if bf16 else "float32",
        "version": json.dumps(code, sort_keys=True),
    }
    return ShardFacts(number=number, count=count, n=len(examples), evaluation=facts)


def data_digest(examples: Batch) -> str:
    """SHA-256 of images, labels and keys; a key stands for the seed and an image's position in its data set."""
    return fingerprint([examples.images.float(), examples.labels, examples.keys])


def _digest(plain: object) -> str:
    return sha256(json.dumps(plain, sort_keys=True).encode())


def merge(paths: Sequence[str | Path]) -> RobustResult:
    """The result of a whole evaluation, from the files of all its shards in any order.

    Raises:
        FileError: a file cannot be read, is not a complete shard, or is of another evaluation than the others (another
            model, data, seed, threat, suite, precision or version); a shard is missing, or there twice.
    """
    found = [(Path(path), RobustResult.load(path)) for path in paths]
    if not found:
        raise FileError("There are no files to merge.")
    shards = [_shard(path, result) for path, result in found]
    by_number: dict[int, tuple[Path, RobustResult]] = {}
    for shard, (path, result) in zip(shards, found, strict=True):
        _check_alike(*found[0], path, result)
        if shard.number in by_number:
            raise FileError(f"{by_number[shard.number][0]} and {path} are both shard {shard.number} of {shard.count}.")
        by_number[shard.number] = path, result
    count = shards[0].count
    missing = [str(number) for number in range(1, count + 1) if number not in by_number]
    if missing:
        few = ", ".join(missing[:8]) + (", …" if len(missing) > 8 else "")
        raise FileError(f"{len(missing)} of {count} shards are missing: {few}.")
    return _merged([by_number[number][1] for number in range(1, count + 1)], shards[0])


def _shard(path: Path, result: RobustResult) -> ShardFacts:
    shard = result.shard
    if shard is None:
        raise FileError(f"{path} is not a shard; `isthmus attack --shard 1/32` writes one.")
    if not result.complete:
        raise FileError(f"{path} is not complete; run the command that wrote it again, and merge then.")
    if len(result) != len(rows_of(shard.number, shard.count, shard.n)):
        raise FileError(f"{path} has {len(result)} images; shard {shard.number} of {shard.count} has another number.")
    return shard


def _facts(result: RobustResult) -> dict[str, object]:
    """What all shards of an evaluation have in common."""
    shard = result.shard
    assert shard is not None
    own = {"count": shard.count, "n": shard.n, "seed": result.seed}
    return {**shard.evaluation, **own, "randomness": result.random, "verification": result.verified}


def _check_alike(first: Path, ours: RobustResult, path: Path, theirs: RobustResult) -> None:
    a, b = _facts(ours), _facts(theirs)
    other = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
    if other:
        readable = [name for name in other if name not in ("model", "data", "suite")]
        details = "".join(f" {name}: {a.get(name)} and {b.get(name)}." for name in readable)
        raise FileError(
            f"{first} and {path} are shards of different evaluations: they differ in {', '.join(other)}.{details}"
        )


def _merged(results: Sequence[RobustResult], whole: ShardFacts) -> RobustResult:
    joined = RobustResult.joined(results)
    rows = torch.cat([rows_of(number, whole.count, whole.n) for number in range(1, whole.count + 1)])
    order = rows.argsort()
    merged = replace(joined, examples=joined.examples.take(order), state=joined.state.take(order), shard=None)
    if data_digest(merged.examples) != whole.evaluation["data"]:
        raise FileError("The images in these files are not those that the evaluation is about; run the shards again.")
    return merged
