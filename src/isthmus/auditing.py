"""Audits: run checks on a classifier, keep each result as it comes, go on after an interruption."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from isthmus import classifier, config, files, provenance, registry, results
from isthmus.attacks import inputs
from isthmus.attacks.threats import Threat, parse
from isthmus.attacks.undisturbed import device_of, undisturbed
from isthmus.checks.context import Context
from isthmus.classifier.contract import NOT_FINITE, Classifier
from isthmus.config import Component
from isthmus.data.images import check_images, check_labels
from isthmus.errors import ConfigError, DataError, FileError, IsthmusError, ModelError, unknown
from isthmus.report import page
from isthmus.report.subjects import Subject
from isthmus.results import AuditRecord
from isthmus.types import CheckResult, Status

DEFAULT_CHECKS = ("accuracy", "robustness", "calibration", "information")
BUDGETS = ("quick", "full")
Progress = Callable[[str, int, int], None]  # check, done, total

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        record: what was audited, with which settings.
        results: a :class:`isthmus.types.CheckResult` for every check, by name.
    """

    record: AuditRecord
    results: dict[str, CheckResult]

    def save(self, path: str | Path) -> Path:
        """Write the page of this audit, one self-contained HTML file."""
        target = Path(path)
        subject = Subject(self.record.model, None, self.record.provenance, self.record, self.results)
        files.write_bytes(target, page.render([subject]).encode())
        return target


def audit(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"] | Sequence[int] | NDArray[Any],
    threat: Threat | str,
    checks: Sequence[str | Mapping[str, Any] | Component] | None = None,
    budget: Literal["quick", "full"] = "quick",
    *,
    seed: int = 0,
    out: str | Path | None = None,
    name: str | None = None,
    data: str = "user images",
    indices: Int[Tensor, "n"] | None = None,
    chosen: str = "all",
    batch_size: int = 256,
    debug: bool = False,
    progress: Progress | None = None,
) -> Audit:
    """Ask every check about one classifier.

    Args:
        model: any ``nn.Module`` from float images in [0, 1] to logits; ours are audited in mean and stochastic mode.
            A foreign model that answers at random is audited as the average of 12 passes. Training flags, buffers and
            the global random state are afterwards as they were.
        images: the images to judge it on, of any floating type (judged in float32), on any device (they go to the
            model's).
        labels: their class indices.
        threat: norm and largest ε, such as ``isthmus.Linf(8 / 255)`` or ``"linf:8/255"``.
        checks: names, or mappings with options, each check once; None means all of :data:`DEFAULT_CHECKS`.
        budget: "quick" or "full": how hard the checks try.
        seed: all random choices derive from it and the examples' indices.
        out: a folder for the results. Checks that are already there with the same model, data, settings and options,
            made by the same version and commit of isthmus, are not run again; an audit of another model, other data or
            other settings is moved aside, never overwritten.
        name: how to call the model on the page; its class name where None.
        data: how to call the data on the page.
        indices: positions of the images in their data set, so that an image gets the same noise in any choice and order
            of images; 0..N−1 where None.
        chosen: how the images were chosen from the data, in words, for the record.
        batch_size: of the checks' forward passes; no result depends on it beyond rounding, unless the model draws
            noise of its own (see :class:`isthmus.nets.modes.AveragedDraws`).
        debug: let a check's unexpected error through instead of recording it.
        progress: called with (check, done, total).

    Raises:
        DataError: images, labels or indices of a wrong shape, type or range.
        ModelError: a model that does not fit the contract, or gives no finite logits for any image.
        ConfigError: an unknown check, budget or option, or a check that is given twice.
    """
    threat = _threat(threat)
    configs = _configs(checks)
    if budget not in BUDGETS:
        raise ConfigError(unknown("budget", budget, BUDGETS))
    inputs.check_model(model)
    inputs.check_whole(batch_size, "batch_size")
    images, labels, positions = _examples(images, labels, indices)
    device = device_of(model, images)
    with undisturbed(model, device, seed):
        adopted = classifier.adopt(model, images.to(device), seed)
        check_labels(labels, adopted.num_classes)
        reporter = _Reporter(progress)
        context = Context(
            model=adopted.model,
            images=images.to(device),
            labels=labels.to(device),
            num_classes=adopted.num_classes,
            threat=threat,
            stochastic=adopted.stochastic,
            bottleneck=adopted.bottleneck,
            draws=adopted.draws,
            indices=positions,
            budget=budget,
            seed=seed,
            batch_size=batch_size,
            progress=reporter,
        )
        record = _record(context, adopted, name or type(model).__name__, data, chosen)
        folder = Path(out) if out is not None else None
        stored = _stored(folder, record, {check.name for check in configs}) if folder is not None else None
        reusable = {} if stored is None else {c.name: r for c in configs if (r := stored.answering(c, record))}
        if stored is not None and stored.record is not None and len(reusable) == len(configs):
            # nothing new is made, and whoever asks again has made nothing
            record = record.model_copy(update={"provenance": stored.record.provenance})
        if folder is not None:
            results.save_record(folder, record)
        found = {}
        for check in configs:
            if check.name in reusable:
                found[check.name] = reusable[check.name]
                continue
            reporter.check = check.name
            reporter(0, 1)
            made = {"options": check.plain(), "provenance": record.provenance}
            found[check.name] = _run(check, context, debug).model_copy(update=made)
            if folder is not None:
                results.save_result(folder, found[check.name])
    return Audit(record, found)


def _threat(given: Threat | str) -> Threat:
    threat = parse(given) if isinstance(given, str) else given
    if not isinstance(threat, Threat):
        raise ConfigError(f"A threat is an object such as isthmus.Linf(8 / 255), or 'linf:8/255'; got {given!r}.")
    return threat


def _configs(checks: Sequence[str | Mapping[str, Any] | Component] | None) -> list[Component]:
    asked = DEFAULT_CHECKS if checks is None else [checks] if isinstance(checks, str) else checks
    configs = [config.component("checks", item) for item in asked]
    twice = [name for name, count in Counter(check.name for check in configs).items() if count > 1]
    if twice:
        raise ConfigError(
            f"The check {twice[0]!r} is given twice, and an audit keeps one result a check; leave one out, or audit "
            "again with the other options and another folder."
        )
    return configs


def _examples(images: Tensor, labels: object, indices: object) -> tuple[Tensor, Tensor, Tensor]:
    """Images as float32, labels and positions in the data set as int64."""
    images = images.detach() if isinstance(images, Tensor) else images
    check_images(images)
    n = len(images)
    numbers = _tensor(labels, "labels")
    if numbers.ndim and len(numbers) != n:
        raise DataError(f"An audit needs as many labels as images, and some; got {n} and {len(numbers)}.")
    if not (numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool):
        numbers = numbers.long()
    positions = torch.arange(n) if indices is None else inputs.integers(_tensor(indices, "indices"), n, "indices").cpu()
    return images.float(), numbers, positions


def _tensor(values: object, what: str) -> Tensor:
    try:
        return torch.as_tensor(values).detach()
    except (TypeError, ValueError, RuntimeError):
        raise DataError(
            f"The {what} must be a tensor, an array or a list of one integer an image; got {type(values).__name__}."
        ) from None


def _record(context: Context, adopted: Classifier, name: str, data: str, chosen: str) -> AuditRecord:
    """What is audited, with everything that tells it from another audit."""
    if not torch.isfinite(context.logits).all(1).any():
        raise ModelError(NOT_FINITE)
    settings: dict[str, Any] = {"threat": str(context.threat), "budget": context.budget, "images": chosen}
    if context.stochastic is not None:
        settings["samples"] = getattr(context.stochastic, "samples", None)
    if context.draws > 1:
        settings["draws"] = context.draws
    assert context.indices is not None
    return AuditRecord(
        model=name,
        model_hash=adopted.fingerprint,
        structure_hash=adopted.structure,
        answers=classifier.answers(context.logits),
        data=data,
        data_hash=files.sha256(
            context.images.cpu().numpy(), context.labels.cpu().numpy(), context.indices.cpu().numpy()
        ),
        n=len(context.labels),
        num_classes=context.num_classes,
        seed=context.seed,
        settings=settings,
        provenance=provenance.collect(),
    )


class _Reporter:
    """Passes a check's progress on under the check's name."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.check = ""

    def __call__(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(self.check, done, total)


def _run(check: Component, context: Context, debug: bool) -> CheckResult:
    """Run one check. Its failure is a result too, and the other checks still run."""
    start = time.perf_counter()
    try:
        result: CheckResult = registry.find("checks", check.name).run(context, check)
    except IsthmusError as error:
        result = CheckResult(check=check.name, status=Status.ERROR, reason=str(error))
    except Exception as error:
        if debug:
            raise
        log.debug("the check %s failed", check.name, exc_info=True)
        said = " ".join(f"{type(error).__name__}: {error}".split())
        result = CheckResult(check=check.name, status=Status.ERROR, reason=said + _gaps(context))
    if nothing := [name for name, metric in result.metrics.items() if metric.value is not None and isnan(metric.value)]:
        said = f"No number came out for {', '.join(nothing)} (NaN)"
        result = CheckResult(check=check.name, status=Status.ERROR, reason=said + _gaps(context))
    return result.model_copy(update={"seconds": time.perf_counter() - start})


def _gaps(context: Context) -> str:
    """The likely cause of a check's failure, where the model gives some images no finite logits."""
    missing = int((~torch.isfinite(context.logits).all(1)).sum())
    return f"; {missing} of {len(context.labels)} images have logits that are NaN or infinite" if missing else ""


@dataclass(frozen=True)
class _Stored:
    """What a folder holds about the model, data and settings that are asked about now."""

    record: AuditRecord | None
    results: Mapping[str, CheckResult]

    def answering(self, check: Component, record: AuditRecord) -> CheckResult | None:
        """The result that another run of a check would only repeat: same options, made by the same code."""
        result = self.results.get(check.name)
        if result is None or result.status is Status.ERROR or result.options != check.plain():
            return None
        return result if _code(result.provenance) == _code(record.provenance) else None


def _stored(folder: Path, record: AuditRecord, asked: set[str]) -> _Stored:
    """What the folder holds about the same model, data and settings; anything else there is moved aside.

    Damaged results are left out: their checks run again.
    """
    if not (folder / "audit.json").exists():
        return _Stored(None, {})
    try:
        old = results.load_record(folder)
    except FileError as error:
        log.warning("%s", error)
        old = None
    if old is None or not _same_question(old, record):
        _move_aside(folder)
        return _Stored(None, {})
    found = {}
    for name in asked.intersection(results.saved_checks(folder)):
        try:
            found[name] = results.load_result(folder, name)
        except FileError as error:
            log.warning("%s It is run again.", error)
    return _Stored(old, found)


def _same_question(old: AuditRecord, new: AuditRecord) -> bool:
    if not classifier.same_answers(old.answers, new.answers):
        return False
    exact = ("model_hash", "structure_hash", "data_hash", "seed", "settings")
    return all(getattr(old, name) == getattr(new, name) for name in exact)


def _code(made: Mapping[str, Any]) -> tuple[Any, Any]:
    """Version and commit of isthmus that made something; a checkout with changes is known by its ``+`` alone."""
    return made.get("packages", {}).get("isthmus"), made.get("commit")


def _move_aside(folder: Path) -> None:
    number = 1
    while (aside := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    folder.rename(aside)
