"""Results of an audit on disk: one JSON per check, with the arrays behind it beside it, and a record of the whole.

::

    audit/audit.json        what was audited, with what, when (an AuditRecord)
    audit/<check>.json      a CheckResult, with the check's options and who made it
    audit/<check>.npz       its per-example arrays, where it has any
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from isthmus.core import files
from isthmus.core.errors import FileError
from isthmus.core.types import CheckResult, Record

RecordT = TypeVar("RecordT", bound=Record)


class AuditRecord(Record):
    """What an audit did: everything needed to repeat it and to tell whether a stored result still applies.

    Attributes:
        model_hash: SHA-256 of the model's class name, parameters and buffers.
        structure_hash: SHA-256 of what the model prints as; tells models of equal weights and other layers apart.
        answers: a few numbers that change when the model's answers on the audited images do; they tell apart what
            neither weights nor layers show. See :func:`isthmus.audits.classifier.answers`.
        data_hash: SHA-256 of the audited images, their labels and their positions in the data set.
        trained_on: SHA-256 of what the model was trained on, as far as the audit was told; of the last audit here. A
            result for which that matters says so itself, as ``trained_on`` in its details.
        settings: the audit's arguments that determine the numbers. A check's own options stand in its result.
        provenance: of the last audit that made a result; each result has its own.
    """

    model: str
    model_hash: str
    structure_hash: str = ""
    answers: tuple[float, ...] = ()
    data: str
    data_hash: str
    n: int
    num_classes: int
    seed: int
    trained_on: str | None = None
    settings: dict[str, Any]
    provenance: dict[str, Any]


def save_record(folder: Path, record: AuditRecord) -> None:
    """Write ``audit.json`` atomically."""
    files.write_json(folder / "audit.json", record.plain())


def load_record(folder: Path) -> AuditRecord:
    """Read ``audit.json``.

    Raises:
        FileError: it is missing, corrupt, or not an audit record.
    """
    return _parse(AuditRecord, folder / "audit.json")


def save_result(folder: Path, result: CheckResult) -> None:
    """Write one check's arrays and JSON. The JSON comes last: where it is, the result is whole."""
    if result.arrays:
        files.write_arrays(folder / f"{result.check}.npz", result.arrays)
    content = result.plain()
    content["arrays"] = sorted(result.arrays)
    if result.arrays:
        content["arrays_hash"] = _hash(result.arrays)
    files.write_json(folder / f"{result.check}.json", content)


def load_result(folder: Path, check: str) -> CheckResult:
    """Read one check's result with its arrays.

    Raises:
        FileError: a file is missing, corrupt or truncated, or the arrays are not those that the JSON was written for.
    """
    path = folder / f"{check}.json"
    content = files.read_json(path)
    named = content.pop("arrays", []) if isinstance(content, dict) else []
    expected = content.pop("arrays_hash", None) if isinstance(content, dict) else None
    result = _validated(CheckResult, content, path)
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise FileError(f"{path} does not say which arrays belong to it; delete it to have it made again.")
    if not named:
        return result
    arrays = files.read_arrays(folder / f"{check}.npz")
    if sorted(arrays) != sorted(named):
        raise FileError(
            f"{folder / check}.npz holds {sorted(arrays)}, but {path.name} names {named}; run the check again."
        )
    if expected is not None and _hash(arrays) != expected:
        raise FileError(
            f"{folder / check}.npz is not what {path.name} was written for (a later audit was interrupted); "
            "run the check again."
        )
    return result.model_copy(update={"arrays": arrays})


def _hash(arrays: Mapping[str, np.ndarray]) -> str:
    parts: list[bytes] = []
    for name, array in sorted(arrays.items()):
        parts += [f"{name} {array.dtype} {array.shape}".encode(), array.tobytes()]
    return files.sha256(*parts)


def saved_checks(folder: Path) -> list[str]:
    """Names of the checks with a result in an audit folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.json") if path.stem != "audit")


def _parse(kind: type[RecordT], path: Path) -> RecordT:
    return _validated(kind, files.read_json(path), path)


def _validated(kind: type[RecordT], content: Any, path: Path) -> RecordT:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])[:200] or "the file"
        raise FileError(
            f"{path} is not a result that this version of isthmus wrote ({where}: {fault['msg']}); "
            "delete it to have it made again."
        ) from None
