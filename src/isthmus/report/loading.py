"""Audited models, each read from the plain files of a run folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from isthmus.core import files, results, run_file
from isthmus.core.errors import FileError
from isthmus.core.format import listed
from isthmus.core.results import AuditRecord
from isthmus.core.types import CheckResult

ADVERSARIAL = "adversarial.safetensors"
"""The file in an audit's folder with the verdict's adversarial examples."""


@dataclass(frozen=True)
class AuditedModel:
    """One audited model.

    Attributes:
        name: its name on the page, unique there.
        recipe: the resolved recipe if isthmus trained it, else None.
        provenance: versions, commit, machine and date of its training, else of its audit.
        record: the audit's inputs and settings.
        results: results by check name.
        run: the content of ``run.json`` if isthmus trained it.
        training: one mapping per line of ``metrics.jsonl``.
        folder: the run folder's name, without the path to it.
        audit: the folder with its results, from that folder's name on; "" if they were never stored.
        adversarial: the file with its adversarial examples, likewise; "" if there is none.
    """

    name: str
    recipe: Mapping[str, Any] | None
    provenance: Mapping[str, Any]
    record: AuditRecord
    results: Mapping[str, CheckResult]
    run: Mapping[str, Any] = field(default_factory=dict)
    training: tuple[Mapping[str, Any], ...] = ()
    folder: str = ""
    audit: str = ""
    adversarial: str = ""

    @property
    def collapsed(self) -> bool:
        """Whether its training ended at chance, or with impossible numbers."""
        return as_mapping(self.run.get("result")).get("collapsed") is True

    @property
    def collapse(self) -> str:
        """Why its training counts as collapsed."""
        default = "Training accuracy stayed at chance. Try a larger rho or a rho_schedule."  # before it was recorded
        return str(as_mapping(self.run.get("result")).get("collapse", default))

    @property
    def unfinished(self) -> str:
        """Which checks of an interrupted audit have no result, and how to resume; empty if all have one."""
        missing = [check for check in self.record.checks if check not in self.results]
        return f"There is no result of {listed(missing)} yet. {_resume(self.record)}" if missing else ""


def load(folder: str | Path) -> AuditedModel:
    """Read one run folder: ``run.json`` and ``metrics.jsonl``, if there, and its audit. An audit folder works too.

    Raises:
        FileError: no such folder, no finished audit in it, or a file that is corrupt, truncated or of another format.
    """
    folder = Path(folder)
    if not files.exists(folder):
        raise FileError(f"There is no run folder {folder}; give folders that `isthmus train` or `isthmus audit` wrote.")
    if not folder.is_dir():
        raise FileError(f"{folder} is a file; give the run folder that holds it.")
    audit = _audit_folder(folder)
    if audit is None:
        raise FileError(_no_audit(folder))
    record = results.load_record(audit)
    found = {check: results.load_result(audit, check) for check in results.saved_checks(audit)}
    if not found:
        raise FileError(f"The audit in {folder} has no finished check. {_resume(record)}")
    run = _run(folder / "run.json")
    name = files.real(folder).name
    place = (Path(name) / audit.relative_to(folder)).as_posix()
    recipe = as_mapping(run.get("recipe"))
    return AuditedModel(
        name=str(recipe.get("name") or record.model or folder.name),
        recipe=recipe or None,
        provenance=training_provenance(run) or record.provenance,
        record=record,
        results=found,
        run=run,
        training=tuple(map(as_mapping, files.read_json_lines(folder / "metrics.jsonl"))),
        folder=name,
        audit=place,
        adversarial=f"{place}/{ADVERSARIAL}" if files.exists(audit / ADVERSARIAL) else "",
    )


def training_provenance(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """Provenance of a run's training (if resumed: of its last start); empty if ``run.json`` has none."""
    starts = run.get("starts")
    return as_mapping(run.get("provenance") or (starts[-1] if isinstance(starts, list) and starts else None))


def is_audited(folder: str | Path) -> bool:
    """Whether a folder holds an audit with a finished check, sound or damaged."""
    audit = _audit_folder(Path(folder))
    return audit is not None and bool(results.saved_checks(audit))


def _audit_folder(folder: Path) -> Path | None:
    places = (folder / "audit", folder)
    return next((place for place in places if files.exists(place / "audit.json")), None)


def _no_audit(folder: Path) -> str:
    if any(_audit_folder(inside) for inside in folder.iterdir() if inside.name != "audit"):
        return f"{folder} holds no audit, but folders in it do; give those: {folder}/*."
    if files.exists(folder / "run.json"):
        return f"{folder} holds no audit; run `isthmus audit {folder}` first."
    return f"{folder} holds no audit; give folders that `isthmus audit` or isthmus.audit(…, out=FOLDER) wrote."


def _resume(record: AuditRecord) -> str:
    """What finishes an audit: the command that began it, or the call in Python."""
    command = record.provenance.get("command")
    return f"To resume: {command}" if command else "To resume, repeat the call of isthmus.audit."


def load_all(folders: Sequence[str | Path]) -> list[AuditedModel]:
    """Read several run folders, each once, and give every model a distinct name.

    Raises:
        FileError: see :func:`load`; or no folder was given.
    """
    if not folders:
        raise FileError("There is nothing to report on; give at least one run folder, such as `isthmus report runs/*`.")
    once: dict[Path, str | Path] = {}
    for folder in folders:
        once.setdefault(files.real(folder), folder)
    return distinct([load(folder) for folder in once.values()])


def distinct(models: Sequence[AuditedModel]) -> list[AuditedModel]:
    """Distinguish models of one name: by seed if seeds differ, then by folder, then by number."""
    models = list(models)
    distinguish: tuple[Callable[[int, AuditedModel], str], ...] = (
        lambda _, model: f"seed {seed}" if (seed := (model.recipe or {}).get("seed")) is not None else "",
        lambda _, model: model.folder,
        lambda index, _: f"no. {index + 1}",
    )
    for hint_of in distinguish:
        clashes = Counter(model.name for model in models)
        hints = {i: hint_of(i, s) for i, s in enumerate(models) if clashes[s.name] > 1}
        # a hint that all namesakes share would only lengthen their names, and so would the name itself
        useful = {i for i, hint in hints.items() if hint not in ("", models[i].name) and _differs(i, hints, models)}
        models = [replace(s, name=f"{s.name} · {hints[i]}") if i in useful else s for i, s in enumerate(models)]
    return models


def _differs(index: int, hints: Mapping[int, str], models: Sequence[AuditedModel]) -> bool:
    return any(hints[i] != hints[index] for i in hints if models[i].name == models[index].name)


def as_mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one: files may hold anything."""
    return value if isinstance(value, Mapping) else {}


def _run(path: Path) -> Mapping[str, Any]:
    if not files.exists(path):
        return {}
    run = run_file.read(path)
    if not isinstance(run, Mapping):
        raise FileError(
            f"{path} is no record of a run ({type(run).__name__}); restore it, or delete it to leave it out."
        )
    return run
