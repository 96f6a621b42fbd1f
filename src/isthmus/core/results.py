"""Results of an audit on disk: one JSON per check, its arrays beside it, and a record of the whole.

::

    audit/audit.json        what was audited, with what, when (an AuditRecord)
    audit/<check>.json      a CheckResult, with the check's options and provenance
    audit/<check>.npz       its per-example arrays, if it has any
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from isthmus.core import files
from isthmus.core.errors import FileError
from isthmus.core.types import Caution, CheckResult, Record

RecordT = TypeVar("RecordT", bound=Record)

FORMAT = 4
"""Version of these files. It is increased whenever a stored name changes its meaning."""


class AuditRecord(Record):
    """The inputs of an audit: all that is needed to repeat it and to decide whether a stored result still applies.

    Attributes:
        model_hash: SHA-256 of the model's class name, parameters and buffers.
        structure_hash: SHA-256 of the model's printed form; distinguishes models with equal weights and other layers.
        answers: a few numbers that change with the model's predictions on the audited images; they distinguish models
            with equal weights and layers. See :func:`isthmus.audits.classifier.answers`.
        data_hash: SHA-256 of the audited images, their labels and their positions in the data set.
        trained_on: SHA-256 of the training examples, if given; of the last audit here. A result that depends on them
            stores it as ``trained_on`` in its details.
        settings: the audit's arguments that determine the numbers. A check's options are in its result.
        checks: of the last audit here; those without a result are not finished.
        cautions: what a look at the classifier and its clean predictions gave before the checks; errors first.
        provenance: of the last audit that made a result; each result has its own. ``command`` is the command that
            began the audit, if one did.
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
    checks: tuple[str, ...] = ()
    cautions: tuple[Caution, ...] = ()
    provenance: dict[str, Any]


def save_record(folder: Path, record: AuditRecord) -> None:
    """Write ``audit.json`` atomically."""
    files.write_json(folder / "audit.json", {"format": FORMAT, **record.plain()})


def load_record(folder: Path) -> AuditRecord:
    """Read ``audit.json``.

    Raises:
        FileError: it is missing, corrupt, in another format, or not an audit record.
    """
    path = folder / "audit.json"
    return _validated(AuditRecord, _read(path), path)


def save_result(folder: Path, result: CheckResult) -> None:
    """Write one check's arrays and JSON. The JSON is written last: if it exists, the result is complete."""
    if result.arrays:
        files.write_arrays(folder / f"{result.check}.npz", result.arrays)
    content = {"format": FORMAT, **result.plain()}
    content["arrays"] = sorted(result.arrays)
    if result.arrays:
        content["arrays_hash"] = _hash(result.arrays)
    files.write_json(folder / f"{result.check}.json", content)


def load_result(folder: Path, check: str, arrays: bool = True) -> CheckResult:
    """Read one check's result, with its arrays unless they are left out.

    Raises:
        FileError: a file is missing, corrupt or truncated, written in another format, or the arrays do not
            belong to the JSON.
    """
    path = folder / f"{check}.json"
    content = _read(path)
    named, expected = content.pop("arrays", []), content.pop("arrays_hash", None)
    result = _validated(CheckResult, content, path)
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise FileError(f"{path} does not name its arrays; delete it to compute it again.")
    if not named or not arrays:
        return result
    found = files.read_arrays(folder / f"{check}.npz")
    if sorted(found) != sorted(named):
        raise FileError(
            f"{folder / check}.npz holds {sorted(found)}, but {path.name} names {named}; run the check again."
        )
    if expected is not None and _hash(found) != expected:
        raise FileError(
            f"{folder / check}.npz is not what {path.name} was written for (a later audit was interrupted); "
            "run the check again."
        )
    return result.model_copy(update={"arrays": found})


def _hash(arrays: Mapping[str, np.ndarray]) -> str:
    parts: list[bytes] = []
    for name, array in sorted(arrays.items()):
        parts += [f"{name} {array.dtype} {array.shape}".encode(), array.tobytes()]
    return files.sha256(*parts)


def saved_checks(folder: Path) -> list[str]:
    """Names of the checks with a result in an audit folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.json") if path.stem != "audit")


def _read(path: Path) -> dict[str, Any]:
    """The content of a file in the current format, without its version."""
    content = files.read_json(path)
    if not isinstance(content, dict):
        raise FileError(
            f"{path} is no result of isthmus ({type(content).__name__}); delete it and run the audit again."
        )
    version = content.pop("format", 1)
    if version != FORMAT:
        writer = "an older" if isinstance(version, int) and version < FORMAT else "another"
        raise FileError(
            f"{path} was written by {writer} version of isthmus (file format {version!r}, expected {FORMAT}); run the "
            "audit again."
        )
    return content


def _validated(kind: type[RecordT], content: Any, path: Path) -> RecordT:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])[:200] or "the file"
        raise FileError(
            f"{path} is not a result that this version of isthmus wrote ({place}: {fault['msg']}); "
            "delete it to compute it again."
        ) from None
