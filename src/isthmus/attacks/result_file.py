"""The file of a robustness result: one safetensors file with every image, and a checksum of its content."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.state import EvaluationState, check_columns, seal
from isthmus.attacks.threats import parse
from isthmus.core import files
from isthmus.core.errors import ConfigError, FileError, brief
from isthmus.core.types import Record

Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(gt=0)]

_FORMAT = "isthmus robust result 4"
_OLDER = "isthmus robust result"
_LARGEST = 2**26  # numbers in one image that a file may claim
_COLUMNS = (
    *("correct", "broken", "stage", "margin", "run", "step", "target_class"),
    *("forwards", "backwards", "zero_gradients", "tries"),
)
_RANDOM_COLUMNS = ("lead", "draws", "once", "sure")


class ShardFacts(Record):
    """Which part of an evaluation a result is; see :mod:`isthmus.attacks.shards`.

    Attributes:
        number: from 1 to ``count``.
        n: images of the whole evaluation.
        evaluation: digests of what determines it, by name.
    """

    number: Size
    count: Size
    n: Size
    evaluation: dict[str, str]


class Facts(Record):
    """What a file stores besides its tensors; see :class:`isthmus.attacks.result.RobustResult`."""

    threat: str
    attacks: Annotated[tuple[str, ...], Field(min_length=1)]
    shape: tuple[Size, Size, Size, Size]
    forward_passes: Count
    backward_passes: Count
    random: bool
    complete: bool
    spent: tuple[Count, ...]
    seed: int
    verified: bool
    unconfirmed: Count
    verification_passes: Count
    shard: ShardFacts | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the state that the file stores."""
        return (*_COLUMNS, *(_RANDOM_COLUMNS if self.random else ()))


def write(path: str | Path, examples: Batch, state: EvaluationState, facts: Facts) -> None:
    """Write a result, atomically.

    Raises:
        FileError: it cannot be written; an older file is left unchanged.
    """
    columns = state.columns()
    tensors = {name: columns[name] for name in facts.columns}
    tensors |= {"labels": examples.labels, "keys": examples.keys, "images": _packed(examples.images)}
    tensors["adversarial"] = state.adversarial[state.broken & (state.stage > 0)]
    if state.nearest is not None:
        tensors["nearest"] = state.nearest[~state.broken]
    if examples.targets is not None:
        tensors["targets"] = examples.targets
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    text = json.dumps(facts.model_dump())
    files.write_bytes(path, save(tensors, {"format": _FORMAT, "facts": text, "seal": seal(tensors, text)}))


def read(path: str | Path) -> tuple[Batch, EvaluationState, Facts]:
    """Read a file that :func:`write` wrote; runs no code from it.

    Raises:
        FileError: it is missing, truncated, of an older version, or something else.
    """
    files.check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _check_format(path, metadata.get("format"))
            facts = Facts.model_validate_json(metadata["facts"], strict=True)
            parse(facts.threat)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _check(tensors, facts)
        return _examples(tensors), _state(tensors, facts), facts
    except FileNotFoundError:
        raise FileError(f"There is no file {path}.") from None
    except (
        SafetensorError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        RuntimeError,
        ConfigError,
    ) as error:
        reason = "its facts are not those of a result" if isinstance(error, ValidationError) else brief(error)
        raise FileError(f"{path} is not a readable robustness result ({reason}); run the evaluation again.") from None


def is_sealed(path: str | Path) -> bool:
    """Whether a file that :func:`read` accepts still has the content that was saved, by its SHA-256."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return bool(seal(tensors, metadata["facts"]) == metadata.get("seal"))


def _check_format(path: str | Path, found: str | None) -> None:
    if found == _FORMAT:
        return
    if found is not None and found.startswith(_OLDER):
        raise FileError(
            f"{path} is a robustness result of another version of isthmus ({found!r}; this version reads {_FORMAT!r}). "
            "Run the evaluation again."
        )
    raise FileError(f"{path} is not a robustness result of isthmus.")


def _check(tensors: dict[str, Tensor], facts: Facts) -> None:
    """Check that tensors and facts agree, before memory is allocated for the sizes they claim.

    Raises:
        ValueError: they do not.
    """
    broken, stage, image = tensors["broken"], tensors["stage"], facts.shape[1:]
    check_columns({name: tensors[name] for name in facts.columns}, facts.shape)
    for name in ("labels", "keys", "targets"):
        if name in tensors or name != "targets":
            check_columns({"stage": tensors[name]}, facts.shape)
    count = len(facts.attacks)
    if not ((stage >= -1) & (stage < count)).all() or not len(set(facts.attacks)) == len(facts.spent) == count:
        raise ValueError("its stages are not those of its attacks")
    rows = {"images": facts.shape[0], "adversarial": int((broken & (stage > 0)).sum())}
    if "nearest" in tensors:
        rows["nearest"] = int((~broken).sum())
    for name, n in rows.items():
        if tuple(tensors[name].shape) != (n, *image) or math.prod(image) > _LARGEST:
            raise ValueError(f"its {name} have the shape {tuple(tensors[name].shape)}, of images {facts.shape}")
    for name in rows.keys() - {"adversarial"}:
        if not tensors[name].isfinite().all():
            raise ValueError(f"its {name} have NaN or infinite pixels")


def _examples(tensors: dict[str, Tensor]) -> Batch:
    return Batch(_unpacked(tensors["images"]), tensors["labels"], tensors["keys"], tensors.get("targets"))


def _state(tensors: dict[str, Tensor], facts: Facts) -> EvaluationState:
    broken, attacked = tensors["broken"], tensors["broken"] & (tensors["stage"] > 0)
    images = _unpacked(tensors["images"])
    state = replace(EvaluationState.new(images), **{name: tensors[name] for name in facts.columns})
    if "nearest" in tensors:
        state.nearest = images.clone()
        state.nearest[~broken] = tensors["nearest"]
    state.adversarial[broken] = images[broken]
    state.adversarial[attacked] = tensors["adversarial"]
    return state


def _packed(images: Tensor) -> Tensor:
    """Images as bytes if that is exact."""
    levels = (images * 255).round()
    return levels.to(torch.uint8) if torch.equal(levels / 255, images) else images


def _unpacked(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images
