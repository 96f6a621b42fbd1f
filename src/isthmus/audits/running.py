"""Run the checks of an audit, store each result, and reuse stored results."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from math import isnan
from pathlib import Path, PurePath
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from isthmus.attacks.engine import inputs
from isthmus.attacks.threats import Threat
from isthmus.audits import classifier, sanity, side_effects
from isthmus.audits.classifier import NOT_FINITE, Classifier
from isthmus.audits.limits import limited_diagnosis, limited_queries, within_memory
from isthmus.audits.options import AuditOptions, Progress
from isthmus.audits.progress import CheckProgress, over_all
from isthmus.audits.request import claimed_accuracy, configs, examples, threat_of, training_examples
from isthmus.audits.result import Audit
from isthmus.audits.stored import Stored, remove_users, stored
from isthmus.checks.check import Check
from isthmus.checks.context import Context
from isthmus.core import execution, files, provenance, results
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError, IsthmusError, ModelError, third_party_code, unknown
from isthmus.core.format import STATUSES
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.core.progress import shown_progress
from isthmus.core.ray_cluster import RayExecutor
from isthmus.core.results import AuditRecord
from isthmus.core.types import Caution, CheckResult, Status
from isthmus.data.images import check_labels

BUDGETS = ("quick", "full")
LEVELS = ("error", "warning", "note")

log = logging.getLogger(__name__)


def audit(
    model: nn.Module,
    images: Float[Tensor, "n c h w"] | ArrayLike | Dataset[Any] | DataLoader[Any],
    labels: Int[Tensor, "n"] | ArrayLike | None = None,
    threat: Threat | str | None = None,
    checks: Sequence[str | Mapping[str, Any] | Component] | None = None,
    budget: Literal["quick", "full"] = "quick",
    claimed: float | str | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    options: AuditOptions | None = None,
    *,
    progress: Progress | bool | None = None,
) -> Audit:
    """Run checks on one classifier.

    Before any attack, the classifier is looked over on the clean images (:mod:`isthmus.audits.sanity`,
    :mod:`isthmus.audits.side_effects`); what is found is in ``Audit.cautions``. If the accuracy is not above that of a
    constant prediction, no attack runs, and there is no verdict.

    Args:
        model: any ``nn.Module`` from float images in [0, 1] to logits. A bottleneck is audited in mean and
            stochastic mode; any other model with random predictions, as the average of 12 passes. Afterwards, training
            flags, weights, buffers, the global random state and torch's global settings are as before.
        images: the images to audit on, of any floating type (converted to float32) or 8-bit, on any device (moved to
            the model's). Without labels, a pair of images and labels, a ``Dataset`` or a ``DataLoader``.
        labels: their class indices.
        threat: norm and largest ε, such as ``isthmus.Linf(8 / 255)`` or ``"linf:8/255"``.
        checks: names, mappings with options or components, each check once; if None all of :data:`DEFAULT_CHECKS`, and
            those of :data:`WITH_TRAINING` if training examples are given.
        budget: "quick" or "full": how hard the checks try.
        claimed: the robust accuracy claimed for this threat, in [0, 1] or as "53%", for the verdict of the check
            ``diagnosis``, which must then be among the checks; if None, that of one run of PGD of 40 steps on the
            cross-entropy.
        seed: all random choices derive from it and the examples' indices.
        out: a folder for the results. A result that is already there, from the same model, data, settings and options
            and the same version and commit of isthmus, is reused; an audit of another model, other data or other
            settings is moved aside, never overwritten.
        options: see :class:`AuditOptions`.
        progress: True, the default, for a bar with the running check and the time left, if stderr is a terminal or in
            a notebook; False for none; or a function that is called with (check, done, total), where done / total never
            falls within a check. The logger ``isthmus`` has a line for each finished check at level INFO.

    Raises:
        DataError: images, labels, indices or training examples of a wrong shape, type or range.
        ModelError: a model that does not fit the contract, or has no finite logits for any image.
        ConfigError: an unknown check, budget or option, a check that is given twice, or a claim without the check
            ``diagnosis``.
        FileError: another process audits into the same folder, or it cannot be written.
    """
    options = inputs.check_options(options, AuditOptions)
    if not isinstance(out, str | PurePath | None):
        raise ConfigError(f"out is the path of a folder; got {out!r}.")
    threat = threat_of(threat, labels)
    chosen = configs(checks, options.trained_on is not None, options.passes)
    claim = claimed_accuracy(claimed, chosen)
    if budget not in BUDGETS:
        raise ConfigError(unknown("budget", budget, BUDGETS))
    inputs.check_model(model)
    inputs.check_whole(options.batch_size, "batch_size")
    inputs.check_seed(seed)
    images, labels, positions = examples(images, labels, options.indices)
    if options.max_queries is not None:
        if options.cluster is not None:
            raise ConfigError("max_queries counts the queries of one process; it cannot be used with a cluster.")
        queries = inputs.check_whole(options.max_queries, "max_queries")
        chosen = limited_diagnosis(chosen, queries // len(images), budget)
    trained_on = training_examples(options.trained_on, tuple(images.shape[1:]))
    device, name = device_of(model, images), options.name or type(model).__name__
    given, names = options.progress if progress is None else progress, [check.name for check in chosen]
    shown = shown_progress(given, name, lambda update: over_all(names, update))
    training = side_effects.training_mode(model)
    with preserve_state(model, device, seed), limited_queries(model, options.max_queries), shown as report:
        adopted, batch_size = within_memory(
            lambda size: classifier.adopt(model, images.to(device), seed, threat, size), options.batch_size
        )
        check_labels(labels, adopted.num_classes)
        if trained_on is not None:
            check_labels(trained_on.examples.labels, adopted.num_classes, "training labels")
        context = Context(
            model=adopted.model,
            images=images.to(device),
            labels=labels.to(device),
            num_classes=adopted.num_classes,
            threat=threat,
            stochastic=adopted.stochastic,
            bottleneck=adopted.bottleneck,
            draws=adopted.draws,
            stateful=adopted.stateful,
            indices=positions,
            trained_on=trained_on,
            claimed=claim,
            budget=budget,
            seed=seed,
            batch_size=batch_size,
            progress=CheckProgress(report),
            folder=None if out is None else Path(out),
        )
        context, batch_size = within_memory(lambda size: _with_logits(replace(context, batch_size=size)), batch_size)
        if not torch.isfinite(context.logits).all(1).any():
            raise ModelError(NOT_FINITE)
        found = (*sanity.cautions(context, options.max_queries is None), *adopted.cautions, *training)
        record = _record(context, adopted, name, options, chosen, found)
        return _run_all(chosen, context, record, options)


def _run_all(checks: Sequence[Component], context: Context, record: AuditRecord, options: AuditOptions) -> Audit:
    """Run every check, or reuse its stored result."""
    folder = context.folder
    with ExitStack() as opened:
        if folder is not None:
            opened.enter_context(files.exclusive(folder, "auditing into"))
        wanted = {check.name for check in checks} | {name for check in checks for name in _uses(check)}
        known = Stored() if folder is None else stored(folder, record, wanted)
        reusable = _reusable(checks, known, record)
        if known.record is not None and len(reusable) == len(checks):
            record = record.model_copy(update={"provenance": known.record.provenance})  # nothing new is measured
        if folder is not None:
            results.save_record(folder, record)
            remove_users(folder, {check.name for check in checks} - reusable.keys())
        if len(reusable) < len(checks) and options.cluster is not None:  # workers share every attack
            opened.enter_context(execution.using(opened.enter_context(RayExecutor(options.cluster))))
        done = {**known.results, **reusable}
        context = _changed(context, results=done)
        for check in in_order(checks):
            if check.name in reusable:
                log.info("%s: stored result", check.name)
                continue
            if isinstance(context.progress, CheckProgress):
                context.progress.start(check.name)
            facts = {"options": check.plain(), "provenance": record.provenance}
            result = _not_run(check, record) or _run(check, context, options.debug)
            done[check.name] = result = result.model_copy(update=facts)
            log.info("%s: %s after %.0f s. %s", check.name, STATUSES[result.status], result.seconds, result.reason)
            if folder is not None:
                results.save_result(folder, done[check.name])
    return Audit(record, {check.name: done[check.name] for check in checks})


def _reusable(checks: Sequence[Component], known: Stored, record: AuditRecord) -> dict[str, CheckResult]:
    """Stored results that another run would repeat; a check runs again if one of these that it uses does."""
    found: dict[str, CheckResult] = {}
    for check in in_order(checks):
        again = {other.name for other in checks} - found.keys()
        result = known.reusable(check, record)
        if result is not None and not again.intersection(_uses(check)):
            found[check.name] = result
    return found


def in_order(checks: Sequence[Component]) -> list[Component]:
    """The checks, those that use results of others last."""
    names = {check.name for check in checks}
    return sorted(checks, key=lambda check: not names.isdisjoint(_uses(check)))


def _uses(check: Component) -> Sequence[str]:
    return check.uses if isinstance(check, Check) else ()


def _record(
    context: Context,
    adopted: Classifier,
    name: str,
    options: AuditOptions,
    checks: Sequence[Component],
    cautions: Sequence[Caution],
) -> AuditRecord:
    """What is audited, with everything that distinguishes it from another audit."""
    settings: dict[str, Any] = {"threat": str(context.threat), "budget": context.budget, "images": options.chosen}
    if context.stochastic is not None:
        settings["samples"] = getattr(context.stochastic, "samples", None)
    if context.claimed is not None:
        settings["claimed"] = context.claimed
    if context.draws > 1:
        settings["draws"] = context.draws
    return AuditRecord(
        model=name,
        model_hash=adopted.fingerprint,
        structure_hash=adopted.structure,
        answers=classifier.answers(context.logits),
        data=options.data,
        data_hash=files.sha256(context.images.cpu().numpy(), context.truth, context.positions.cpu().numpy()),
        n=len(context.labels),
        num_classes=context.num_classes,
        seed=context.seed,
        trained_on=None if context.trained_on is None else context.trained_on.hash,
        settings=settings,
        checks=tuple(check.name for check in checks),
        cautions=tuple(sorted(cautions, key=lambda caution: LEVELS.index(caution.level))),
        provenance=provenance.collect() | ({"command": options.command} if options.command else {}),
    )


def _not_run(check: Component, record: AuditRecord) -> CheckResult | None:
    """The result of a check that attacks a classifier whose numbers say nothing; None for all others."""
    errors = [caution.text for caution in record.cautions if caution.level == "error"]
    if not errors or not (isinstance(check, Check) and check.above_chance):
        return None
    return CheckResult(check=check.name, status=Status.SKIPPED, reason=f"No attack was run. {' '.join(errors)}")


def _run(check: Component, context: Context, debug: bool) -> CheckResult:
    """Run one check. Its failure is a result too, and the other checks still run."""
    start = time.perf_counter()
    try:
        if not isinstance(check, Check):
            raise ConfigError(f"The check {check.name!r} is no subclass of isthmus.checks.Check.")
        result, _ = within_memory(lambda size: check.run(_changed(context, batch_size=size)), context.batch_size)
    except IsthmusError as error:
        result = CheckResult(check=check.name, status=Status.ERROR, reason=str(error))
    except (Exception, SystemExit) as error:  # a user's model may do anything
        if debug:
            raise
        log.debug("the check %s failed", check.name, exc_info=True)
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        if place := third_party_code(error):
            cause += f", raised in {place}, which is not part of isthmus"
        result = CheckResult(check=check.name, status=Status.ERROR, reason=cause + _missing(context))
    if nans := dict.fromkeys(m.name for m in result.metrics if m.value is not None and isnan(m.value)):
        cause = f"The value of {', '.join(nans)} is NaN"
        result = CheckResult(check=check.name, status=Status.ERROR, reason=cause + _missing(context))
    return result.model_copy(update={"check": check.name, "seconds": time.perf_counter() - start})


def _with_logits(context: Context) -> Context:
    assert context.logits is not None
    return context


def _changed(context: Context, **facts: Any) -> Context:
    """The same context with other values of these fields, and the clean logits that are already known."""
    changed = replace(context, **facts)
    names = ("logits", "stochastic_logits", "keys")
    changed.__dict__.update({name: context.__dict__[name] for name in names if name in context.__dict__})
    return changed


def _missing(context: Context) -> str:
    """The likely cause of a check's failure, if some images have no finite logits."""
    missing = int((~torch.isfinite(context.logits).all(1)).sum())
    return f"; {missing} of {len(context.labels)} images have logits that are NaN or infinite" if missing else ""
