"""An audit as one file that others can check: results, adversarial examples, and hashes of model and data."""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isthmus.attacks.result import RobustResult
from isthmus.attacks.result_file import is_sealed
from isthmus.attacks.verify import Verification
from isthmus.attacks.verify import verify as recompute
from isthmus.audits.attack_file import examples_of
from isthmus.checks.diagnosis import ADVERSARIAL
from isthmus.core import files, results
from isthmus.core.config import Component
from isthmus.core.errors import FileError, IsthmusError, brief
from isthmus.core.randomness import example_keys
from isthmus.core.results import AuditRecord
from isthmus.core.types import CheckResult

MANIFEST = "manifest.json"
FORMAT = 1
"""Version of the manifest. It is increased whenever a key changes its meaning."""

_LARGEST = {".json": 2**26, ".safetensors": 2**33}  # bytes of a member
_POSITIONS = (2**14, 2**18, 2**22)  # sizes of a data set, among whose positions those of the images are looked up


class EvidenceError(IsthmusError):
    """Something that a bundle states and that does not hold."""


@dataclass(frozen=True)
class Contents:
    """What a bundle states, once its files agree with its manifest and with each other.

    Attributes:
        record: the audit's inputs and settings.
        results: of the checks, without their arrays.
        claim: the adversarial examples.
        digest: SHA-256 of the manifest, which holds those of all files.
    """

    record: AuditRecord
    results: Mapping[str, CheckResult]
    claim: RobustResult
    digest: str


@dataclass(frozen=True)
class Accepted:
    """What a verification of a bundle has confirmed.

    Attributes:
        record: the audit's inputs and settings.
        verification: of the adversarial examples, on the model.
        digest: SHA-256 of the bundle's manifest, which holds those of all files.
        verdict: the stored status, with the mode that it is about; tests and attacks behind it were not repeated.
    """

    record: AuditRecord
    verification: Verification
    digest: str
    verdict: str


def bundle(folder: Path, path: Path) -> str:
    """Write an audit's results and adversarial examples into one file.

    It holds ``audit.json``, the JSON file of each check, every safetensors file of the audit, and a manifest with the
    SHA-256 of each. Arrays of single examples are left out: those of the diagnosis follow from the adversarial
    examples. The same audit gives the same bytes.

    Args:
        folder: an audited run, or the folder of an audit.
        path: the file to write.

    Returns:
        The SHA-256 of the manifest.

    Raises:
        FileError: there is no audit with adversarial examples, a file is damaged, or the bundle cannot be written.
        EvidenceError: results and adversarial examples do not agree, for example since the diagnosis attacked fewer
            images than the audit has.
    """
    audit = next((place for place in (folder / "audit", folder) if files.exists(place / "audit.json")), None)
    if audit is None or not files.exists(audit / ADVERSARIAL):
        raise FileError(
            f"{folder} holds no audit with adversarial examples; run `isthmus audit` with the check diagnosis first."
        )
    _check_agreement(*_read(audit))
    content = {place.name: place.read_bytes() for place in (*audit.glob("*.json"), *audit.glob("*.safetensors"))}
    listed = {name: {"sha256": files.sha256(data), "bytes": len(data)} for name, data in sorted(content.items())}
    manifest = json.dumps({"format": FORMAT, "files": listed}, indent=1).encode()
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in ((MANIFEST, manifest), *sorted(content.items())):
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    files.write_bytes(path, buffer.getvalue())
    return files.sha256(manifest)


def is_bundle(path: Path) -> bool:
    """Whether a path is a bundle rather than a file of adversarial examples."""
    return path.is_file() and zipfile.is_zipfile(path)


def read(path: Path) -> Contents:
    """Read a file that :func:`bundle` wrote, and check its files and their agreement. No code of a model runs.

    Raises:
        EvidenceError: the first thing that does not hold.
        FileError: the file cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="isthmus-") as folder:
        digest = _unpacked(path, Path(folder))
        try:
            record, found, claim = _read(Path(folder))
        except FileError as error:
            reason = str(error).replace(f"{folder}/", "").partition(";")[0].rstrip(".")
            raise FileError(f"{path} holds a file that isthmus did not write like this: {reason}.") from None
    _check_agreement(record, found, claim)
    return Contents(record, found, claim, digest)


def verify(bundled: Contents, model: nn.Module, fingerprint: str, data: Component | None = None) -> Accepted:
    """Check the model and every prediction of a bundle.

    Call it in a process in which no code of the model has run, with a model from :func:`isthmus.audits.isolated`.

    Args:
        bundled: what :func:`read` returned.
        model: from images in [0, 1] to logits.
        fingerprint: the model's (:func:`isthmus.models.identity.fingerprint`).
        data: the data set, to compare the original images with; not compared if None.

    Raises:
        EvidenceError: the first thing that does not hold.
    """
    record, claim = bundled.record, bundled.claim
    if fingerprint != record.model_hash:
        raise EvidenceError(
            f"The model is another one: its SHA-256 is {fingerprint}, and the audit is about {record.model_hash}."
        )
    images, labels = (None, None) if data is None else examples_of(claim, data)
    verification = recompute(claim, model, images=images, labels=labels, progress=False)
    if verification.examples_match is False:
        raise EvidenceError("The original images and labels are not those of the data set.")
    if not verification.agrees:
        reason = next(iter(verification.reasons), "the robust accuracy is another one")
        rows = [row for row, why in verification.failures.items() if why == reason]
        place = f" (row {rows[0]}; {len(rows)} of {len(claim)} rows)" if rows else ""
        raise EvidenceError(f"The predictions do not confirm the adversarial examples: {reason}{place}.")
    diagnosis = bundled.results["diagnosis"]
    verdict = f"{_verdict(diagnosis).get('status')}, about the {diagnosis.details.get('mode')} mode"
    return Accepted(record, verification, bundled.digest, verdict)


def _unpacked(path: Path, folder: Path) -> str:
    """Write the members to a folder if the manifest lists exactly these, by size and hash; the manifest's SHA-256."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            manifest = _member(archive, members.pop(MANIFEST), 2**20)
            listed = files.parse_json(manifest.decode())
            if listed["format"] != FORMAT:
                raise FileError(f"{path} is a bundle of another version of isthmus ({listed['format']!r}).")
            if len(archive.infolist()) != len(members) + 1 or listed["files"].keys() != members.keys():
                raise EvidenceError("The files in the bundle are not those that its manifest lists.")
            for name, info in members.items():
                if Path(name).name != name or Path(name).suffix not in _LARGEST:
                    raise EvidenceError(f"The bundle holds a file {name!r}, which no bundle has.")
                content = _member(archive, info, min(_LARGEST[Path(name).suffix], listed["files"][name]["bytes"]))
                if files.sha256(content) != listed["files"][name]["sha256"]:
                    raise EvidenceError(f"{name} is not the file that the manifest lists: its SHA-256 differs.")
                (folder / name).write_bytes(content)
    except IsthmusError:
        raise
    except Exception as error:  # for a damaged file, zipfile and zlib raise nearly anything
        raise FileError(f"{path} is not a readable bundle ({brief(error)}); get it again.") from None
    return files.sha256(manifest)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    """The content of a member, of which no more is unpacked than is allowed."""
    with archive.open(info) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise EvidenceError(f"{info.filename} is larger than the manifest states, or than any such file.")
    return content


def _read(folder: Path) -> tuple[AuditRecord, dict[str, CheckResult], RobustResult]:
    """The record, the results without their arrays, and the adversarial examples."""
    record = results.load_record(folder)
    found = {check: results.load_result(folder, check, arrays=False) for check in results.saved_checks(folder)}
    claim = RobustResult.load(folder / ADVERSARIAL)
    if not is_sealed(folder / ADVERSARIAL):
        raise EvidenceError(f"{ADVERSARIAL} does not match its own checksum.")
    return record, found, claim


def _check_agreement(record: AuditRecord, found: dict[str, CheckResult], claim: RobustResult) -> None:
    """Check that record, results and adversarial examples are about the same, and state the same numbers."""
    diagnosis = found.get("diagnosis")
    if diagnosis is None:
        raise EvidenceError("The bundle holds no result of the check diagnosis.")
    at = {"mode": "mean", "norm": claim.threat.name, "eps": claim.threat.eps}
    clean = int(claim.correct.sum()) / len(claim)
    facts = {
        "threat": (str(record.settings.get("threat")), str(claim.threat)),
        "number of images": (record.n, len(claim)),
        "seed": (record.seed, claim.seed),
    }
    numbers = {
        "robust accuracy in mean mode": (_value(diagnosis, "corrected_accuracy", **at), claim.accuracy),
        "clean accuracy of the diagnosis": (_value(diagnosis, "clean_accuracy", mode="mean"), clean),
    }
    if "accuracy" in found and not claim.random:  # of a random model they are averages over other draws
        numbers["clean accuracy"] = _value(found["accuracy"], "accuracy", mode="mean"), clean
    if diagnosis.details.get("mode") == "mean":
        numbers["robust accuracy of the verdict"] = _verdict(diagnosis).get("corrected"), claim.accuracy
    for name, (given, shown) in facts.items():
        if given != shown:
            raise EvidenceError(f"The {name} is {given} in the results and {shown} by the adversarial examples.")
    for name, (value, counted) in numbers.items():
        if value is None or not math.isclose(value, counted, abs_tol=1e-9):
            raise EvidenceError(f"The {name} is {value} in the results and {counted} by the adversarial examples.")
    if _data_hash(claim) != record.data_hash:
        raise EvidenceError("The images of the bundle are not those that the audit's data hash is about.")


def _verdict(diagnosis: CheckResult) -> Mapping[str, Any]:
    stored = diagnosis.details.get("verdict")
    return stored if isinstance(stored, Mapping) else {}


def _value(result: CheckResult, name: str, **coords: Any) -> float | None:
    metric = result.metrics.get(name, **coords)
    return None if metric is None else metric.value


def _data_hash(claim: RobustResult) -> str:
    """SHA-256 of images, labels and positions; the positions are those that give the examples' keys."""
    for count in _POSITIONS:
        keys, order = example_keys(claim.seed, torch.arange(count)).sort()
        found = torch.searchsorted(keys, claim.keys).clamp(max=count - 1)
        if torch.equal(keys[found], claim.keys):
            examples = claim.examples
            return files.sha256(examples.images.numpy(), examples.labels.numpy(), order[found].numpy())
    raise EvidenceError("The keys of the examples are not those of positions in a data set under this seed.")
