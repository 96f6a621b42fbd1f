"""Audits: run checks on a classifier, keep each result as it comes, go on after an interruption."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch import Tensor, nn

from isthmus.attacks.engine import inputs, workers
from isthmus.attacks.engine.progress import line
from isthmus.attacks.threats import Threat
from isthmus.audits import classifier
from isthmus.audits.classifier import NOT_FINITE, Classifier
from isthmus.audits.request import configs, examples, share, threat_of
from isthmus.audits.request import trained_on as training
from isthmus.audits.stored import stored
from isthmus.checks.context import Context
from isthmus.core import files, provenance, registry, results
from isthmus.core.cluster import Cluster
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError, IsthmusError, ModelError, foreign_code, out_of_memory, unknown
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.core.results import AuditRecord
from isthmus.core.types import CheckResult, Status
from isthmus.data.images import Examples, check_labels
from isthmus.diagnosis.context import FULL, QUICK
from isthmus.diagnosis.verdict import Verdict
from isthmus.models.bottleneck import Bottleneck
from isthmus.report import page
from isthmus.report.subjects import Subject

BUDGETS = ("quick", "full")
Progress = Callable[[str, int, int], None]  # check, done, total

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        record: what was audited, with which settings.
        results: a :class:`isthmus.core.types.CheckResult` for every check, by name.
    """

    record: AuditRecord
    results: dict[str, CheckResult]

    @property
    def verdict(self) -> Verdict:
        """Whether the robust accuracy is real, as the check ``diagnosis`` found.

        Raises:
            ConfigError: this audit was made without that check, or the check broke off.
        """
        result = self.results.get("diagnosis")
        if result is None or "verdict" not in result.details:
            said = f" It broke off: {result.reason}" if result is not None else ""
            raise ConfigError(f'This audit has no verdict; it is given by the check "diagnosis".{said}')
        return Verdict.model_validate(result.details["verdict"])

    def save(self, path: str | Path) -> Path:
        """Write the page of this audit, one self-contained HTML file."""
        target = Path(path)
        subject = Subject(self.record.model, None, self.record.provenance, self.record, self.results)
        files.write_bytes(target, page.render([subject]).encode())
        return target


def audit(
    model: nn.Module,
    images: Float[Tensor, "n c h w"] | ArrayLike,
    labels: Int[Tensor, "n"] | ArrayLike,
    threat: Threat | str,
    checks: Sequence[str | Mapping[str, Any] | Component] | None = None,
    budget: Literal["quick", "full"] = "quick",
    *,
    trained_on: Examples | tuple[Float[Tensor, "m c h w"], Int[Tensor, "m"]] | None = None,
    claimed: float | str | None = None,
    passes: int | None = None,
    max_queries: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    name: str | None = None,
    data: str = "user images",
    indices: Int[Tensor, "n"] | None = None,
    chosen: str = "all",
    batch_size: int = 256,
    debug: bool = False,
    progress: Progress | bool | None = None,
    cluster: Cluster | None = None,
) -> Audit:
    """Ask every check about one classifier.

    Args:
        model: any ``nn.Module`` from float images in [0, 1] to logits; ours are audited in mean and stochastic mode.
            A foreign model that answers at random is audited as the average of 12 passes. Training flags, weights,
            buffers, the global random state and torch's global settings are afterwards as they were.
        images: the images to judge it on, of any floating type (judged in float32), on any device (they go to the
            model's).
        labels: their class indices.
        threat: norm and largest ε, such as ``isthmus.Linf(8 / 255)`` or ``"linf:8/255"``.
        checks: names, or mappings with options, each check once; None means all of :data:`DEFAULT_CHECKS`, and those of
            :data:`WITH_TRAINING` where ``trained_on`` is given.
        budget: "quick" or "full": how hard the checks try.
        trained_on: what the classifier was trained on, images in [0, 1] with their labels, or a split of data such as
            ``load("digits").train``, for the check ``memorisation``. The images audited must not be among them.
        claimed: the robust accuracy that somebody reports for this threat, in [0, 1] or as "53%", for the verdict;
            where None, what one run of PGD of 40 steps on the cross-entropy says.
        passes: example-passes for each image, forward and backward, that the verdict may spend at most (the option
            ``passes`` of the check ``diagnosis``, which must be asked); its default where None.
        max_queries: how many images the model, or any copy of it, may be shown in all: what a service is asked. The
            verdict gets what that allows for each image, if it is less than ``passes``. Where all is spent, checks
            break off, and the verdict is undecided unless it is clear by then. Not with ``cluster``.
        seed: all random choices derive from it and the examples' indices.
        out: a folder for the results. Checks that are already there with the same model, data, settings and options,
            made by the same version and commit of isthmus, are not run again; an audit of another model, other data or
            other settings is moved aside, never overwritten.
        name: how to call the model on the page; its class name where None.
        data: how to call the data on the page.
        indices: positions of the images in their data set, so that an image gets the same noise in any choice and order
            of images; 0..N−1 where None.
        chosen: how the images were chosen from the data, in words, for the record.
        batch_size: of the checks' forward passes, halved where memory runs out; no result depends on it beyond
            rounding, unless the model draws noise of its own (see :class:`isthmus.models.modes.AveragedDraws`).
        debug: let a check's unexpected error through instead of recording it.
        progress: True for a line on stderr; or called with (check, done, total), where done / total never falls within
            a check.
        cluster: Ray workers share the attacks' examples; results are those of one process. Each gets the model once, by
            pickle.

    Raises:
        DataError: images, labels, indices or training examples of a wrong shape, type or range.
        ModelError: a model that does not fit the contract, or gives no finite logits for any image.
        ConfigError: an unknown check, budget or option, or a check that is given twice.
        FileError: another process audits into the same folder, or it cannot be written.
    """
    threat = threat_of(threat)
    asked = configs(checks, trained_on is not None, passes)
    claim = share(claimed)
    if budget not in BUDGETS:
        raise ConfigError(unknown("budget", budget, BUDGETS))
    inputs.check_model(model)
    inputs.check_whole(batch_size, "batch_size")
    inputs.check_seed(seed)
    images, labels, positions = examples(images, labels, indices)
    if max_queries is not None:
        if cluster is not None:
            raise ConfigError("max_queries counts what one process asks; it cannot be given together with a cluster.")
        asked = _within(asked, inputs.check_whole(max_queries, "max_queries") // len(images), budget)
    trained = training(trained_on, tuple(images.shape[1:]))
    device = device_of(model, images)
    with preserve_state(model, device, seed), _limited(model, max_queries), ExitStack() as opened:
        adopted, batch_size = _within_memory(
            lambda size: classifier.adopt(model, images.to(device), seed, threat, size), batch_size
        )
        check_labels(labels, adopted.num_classes)
        if trained is not None:
            check_labels(trained.examples.labels, adopted.num_classes, "training labels")
        reporter = _Reporter((line() if progress else None) if isinstance(progress, bool) else progress)
        context = Context(
            model=adopted.model,
            images=images.to(device),
            labels=labels.to(device),
            num_classes=adopted.num_classes,
            threat=threat,
            stochastic=adopted.stochastic,
            bottleneck=adopted.bottleneck,
            draws=adopted.draws,
            remembers=adopted.remembers,
            indices=positions,
            trained_on=trained,
            claimed=claim,
            budget=budget,
            seed=seed,
            batch_size=batch_size,
            progress=reporter,
            folder=None if out is None else Path(out),
        )
        context, _ = _within_memory(lambda size: _with_logits(replace(context, batch_size=size)), batch_size)
        record = _record(context, adopted, name or type(model).__name__, data, chosen)
        folder = Path(out) if out is not None else None
        if folder is not None:
            opened.enter_context(files.exclusive(folder, "auditing into"))
        known = stored(folder, record, {check.name for check in asked}) if folder is not None else None
        reusable = {} if known is None else {c.name: r for c in asked if (r := known.answering(c, record))}
        if known is not None and known.record is not None and len(reusable) == len(asked):
            # nothing new is made, and whoever asks again has made nothing
            record = record.model_copy(update={"provenance": known.record.provenance})
        if folder is not None:
            results.save_record(folder, record)
        found = {}
        with _helped(cluster if len(reusable) < len(asked) else None):
            for check in asked:
                if check.name in reusable:
                    found[check.name] = reusable[check.name]
                    continue
                reporter.start(check.name)
                made = {"options": check.plain(), "provenance": record.provenance}
                found[check.name] = _run(check, context, debug).model_copy(update=made)
                if folder is not None:
                    results.save_result(folder, found[check.name])
    return Audit(record, found)


def _within(asked: list[Component], queries: int, budget: str) -> list[Component]:
    """The checks, the verdict with no more passes for each image than so many queries."""
    usual = (QUICK if budget == "quick" else FULL).passes
    return [
        check.model_copy(update={"passes": max(1, min(queries, getattr(check, "passes", None) or usual))})
        if check.name == "diagnosis"
        else check
        for check in asked
    ]


@contextmanager
def _limited(model: nn.Module, most: int | None) -> Iterator[None]:
    """Inside, the model and its copies answer so many images in all, and then raise a ModelError."""
    if most is None:
        yield
        return
    shown = 0

    def count(_module: nn.Module, given: tuple[Any, ...]) -> None:
        nonlocal shown
        images: Tensor = given[0]
        if shown + len(images) > most:
            raise ModelError(f"the {most:,} queries of max_queries are spent")
        shown += len(images)

    # A function, which copies of the model share. Modes of a bottleneck have the backbone alone in common.
    hook = (model.backbone if isinstance(model, Bottleneck) else model).register_forward_pre_hook(count)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _helped(cluster: Cluster | None) -> Iterator[None]:
    """Inside, workers on the cluster share every attack."""
    if cluster is None:
        yield
        return
    from isthmus.attacks.engine.ray_workers import RayAgency

    with RayAgency(cluster) as agency, workers.hiring(agency):
        yield


def _record(context: Context, adopted: Classifier, name: str, data: str, chosen: str) -> AuditRecord:
    """What is audited, with everything that tells it from another audit."""
    if not torch.isfinite(context.logits).all(1).any():
        raise ModelError(NOT_FINITE)
    settings: dict[str, Any] = {"threat": str(context.threat), "budget": context.budget, "images": chosen}
    if context.stochastic is not None:
        settings["samples"] = getattr(context.stochastic, "samples", None)
    if context.claimed is not None:
        settings["claimed"] = context.claimed
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
        trained_on=None if context.trained_on is None else context.trained_on.hash,
        settings=settings,
        provenance=provenance.collect(),
    )


class _Reporter:
    """Passes a check's progress on under the check's name; parts of a check that count anew do not run backwards."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.check, self.share = "", 0.0

    def start(self, check: str) -> None:
        """A check begins."""
        self.check, self.share = check, 0.0
        self(0, 1)

    def __call__(self, done: int, total: int) -> None:
        share = done / max(total, 1)
        if self.progress is not None and share >= self.share:
            self.share = share
            self.progress(self.check, done, total)


def _run(check: Component, context: Context, debug: bool) -> CheckResult:
    """Run one check. Its failure is a result too, and the other checks still run."""
    start = time.perf_counter()
    try:
        module = registry.find("checks", check.name)
        result: CheckResult
        result, _ = _within_memory(lambda size: module.run(_smaller(context, size), check), context.batch_size)
    except IsthmusError as error:
        result = CheckResult(check=check.name, status=Status.ERROR, reason=str(error))
    except (Exception, SystemExit) as error:  # somebody else's model may do anything
        if debug:
            raise
        log.debug("the check %s failed", check.name, exc_info=True)
        said = " ".join(f"{type(error).__name__}: {error}".split())
        if place := foreign_code(error):
            said += f", raised in {place}, which is not part of isthmus"
        result = CheckResult(check=check.name, status=Status.ERROR, reason=said + _gaps(context))
    if nothing := [name for name, metric in result.metrics.items() if metric.value is not None and isnan(metric.value)]:
        said = f"No number came out for {', '.join(nothing)} (NaN)"
        result = CheckResult(check=check.name, status=Status.ERROR, reason=said + _gaps(context))
    return result.model_copy(update={"seconds": time.perf_counter() - start})


def _within_memory(act: Callable[[int], T], batch_size: int) -> tuple[T, int]:
    """What ``act`` gives with this batch size, or the largest of its halves that fits into memory; and that size."""
    given = batch_size
    while True:
        try:
            found = act(batch_size)
        except Exception as error:
            if batch_size == 1 or not out_of_memory(error):
                raise
        else:
            if batch_size < given:
                log.warning("There is not enough memory for batches of %d; the audit takes %d.", given, batch_size)
            return found, batch_size
        batch_size //= 2  # after the except clause, which holds on to what was in memory
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _with_logits(context: Context) -> Context:
    assert context.logits is not None
    return context


def _smaller(context: Context, batch_size: int) -> Context:
    """The same context, with clean logits that are known already."""
    if batch_size == context.batch_size:
        return context
    smaller = replace(context, batch_size=batch_size)
    smaller.__dict__["logits"] = context.logits
    return smaller


def _gaps(context: Context) -> str:
    """The likely cause of a check's failure, where the model gives some images no finite logits."""
    missing = int((~torch.isfinite(context.logits).all(1)).sum())
    return f"; {missing} of {len(context.labels)} images have logits that are NaN or infinite" if missing else ""
