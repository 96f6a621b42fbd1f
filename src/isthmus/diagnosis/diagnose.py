"""The battery: every test, what an expert would try next, and the verdict."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from isthmus import metrics
from isthmus.attacks.engine.counted_model import BudgetExhausted
from isthmus.attacks.result import RobustResult
from isthmus.core.errors import IsthmusError
from isthmus.core.types import Metric, Status
from isthmus.diagnosis import (
    batch_dependence,
    black_box,
    differences,
    ensemble,
    follow_up,
    gradients,
    history,
    one_step,
    outputs,
    radius,
    randomness,
    restarts,
    steps,
    surface,
)
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.finding import RANK, Finding
from isthmus.diagnosis.verdict import Verdict, verdict

Test = Callable[[DiagnosisContext], Finding]

CUT = "cut short: the budget is spent"

log = logging.getLogger(__name__)

BEFORE: dict[str, Test] = {
    "outputs": outputs.examine,
    "history": history.examine,
    "companions": batch_dependence.examine,
    "randomness": randomness.examine,
    "gradients": gradients.examine,
    "differences": differences.examine,
    "surface": surface.examine,
    "one_step": one_step.examine,
}
"""These cost little and say which follow-ups are worth trying."""

BETWEEN: dict[str, Test] = {"restarts": restarts.examine, "steps": steps.examine, "radius": radius.examine}
"""These run an attack at length. They come after the first follow-ups, lest a small budget be spent before those."""

NEED_GRADIENTS = ("gradients", "differences", "surface", "one_step", "restarts", "steps", "radius")
AFTER: dict[str, Test] = {"ensemble": ensemble.examine, "black_box": black_box.examine}
"""These ask the strong ensemble, which runs on what better gradients have left."""

TESTS = (*BEFORE, *BETWEEN, *AFTER)


@dataclass(frozen=True)
class Diagnosis:
    """Everything that the battery found.

    Attributes:
        verdict: what became of the reported accuracy.
        findings: the evidence, what speaks against it first.
        follow_ups: accuracy that was left after each, in the order they ran.
        usual: which examples stand against the usual attack.
        result: what broke each example, with its witness.
        chance: accuracy of the best constant answer.
        forwards, backwards: example-passes of everything.
        ensemble: of the strong ensemble alone.
        bound: example-passes that were never to be exceeded.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    follow_ups: dict[str, Metric]
    usual: Bool[Tensor, " n"]
    result: RobustResult
    chance: float
    forwards: int
    backwards: int
    ensemble: int
    bound: int


def diagnose(suspect: DiagnosisContext, claimed: float | None = None) -> Diagnosis:
    """Put a suspect through all tests, and follow up on what they find, until nothing is left to try or to spend."""
    n = len(suspect)
    log.info("diagnosis: at most %d passes for each of %d images, %d in all", suspect.bound // n, n, suspect.bound)
    findings: list[Finding] = []
    tried: dict[str, Metric] = {}
    cut: list[str] = []
    every = {**follow_up.FIRST, **follow_up.LAST}
    for tests, remedies in ((BEFORE, follow_up.FIRST), (BETWEEN, follow_up.FIRST), (AFTER, every)):
        findings += [_asked(name, test, suspect, cut) for name, test in tests.items()]
        findings = _random_after_all(findings, suspect, cut)
        _follow_up(suspect, findings, remedies, tried, cut)
    if not suspect.usual.complete:
        cut.insert(0, "usual attack")
    reported, corrected = suspect.reported.numpy(), suspect.best.robust.numpy()
    margin = metrics.paired_difference(reported & corrected, reported)
    found = verdict(
        claimed,
        metrics.accuracy(reported),
        metrics.accuracy(corrected),
        margin,
        suspect.chance,
        failed=_failed(findings),
        doubts=_doubts(suspect, findings, tried, margin),
        untested=_untested(suspect, findings),
        not_tried=tuple(name.replace("_", " ") for name in dict.fromkeys(cut)),
    )
    return Diagnosis(
        verdict=found,
        findings=tuple(sorted(findings, key=lambda finding: RANK[finding.status])),
        follow_ups=tried,
        usual=suspect.reported,
        result=suspect.best,
        chance=suspect.chance,
        forwards=suspect.forwards,
        backwards=suspect.backwards,
        ensemble=suspect.ensemble_passes,
        bound=suspect.bound,
    )


def _random_after_all(findings: list[Finding], suspect: DiagnosisContext, cut: list[str]) -> list[Finding]:
    """The finding on randomness again, where a later attack found it: the model may be random off the clean images."""
    return [
        _asked("randomness", randomness.examine, suspect, cut)
        if suspect.random and finding.test == "randomness" and finding.status == Status.PASS
        else finding
        for finding in findings
    ]


def _failed(findings: list[Finding]) -> tuple[str, ...]:
    """Tests that failed."""
    return tuple(finding.test.replace("_", " ") for finding in findings if finding.status == Status.FAIL)


def _doubts(
    suspect: DiagnosisContext, findings: list[Finding], tried: dict[str, Metric], margin: Metric
) -> tuple[str, ...]:
    """Why nothing can be said for a number that was not shown to be too high."""
    doubts = []
    broke_off = [finding.test for finding in findings if finding.status == Status.ERROR]
    broke_off += [name for name, metric in tried.items() if metric.value is None]
    if broke_off:
        doubts.append(f"{' and '.join(name.replace('_', ' ') for name in broke_off)} broke off")
    if suspect.opaque:
        doubts.append("the model gives no gradient, so that only attacks without one could be tried")
    impossible = next((finding.details.get("impossible") for finding in findings if finding.test == "radius"), None)
    if impossible and not (margin.interval and margin.interval.low > 0):
        doubts.append(f"{impossible}, and no attack broke more: none is shown to work on this model")
    return tuple(doubts)


def _untested(suspect: DiagnosisContext, findings: list[Finding]) -> tuple[str, ...]:
    """Tests that failed to run, or that need a gradient or a copy which the suspect does not give."""
    no_copy = ("history",) if suspect.remembers is None else ()
    impossible = (*no_copy, *NEED_GRADIENTS) if suspect.opaque else no_copy
    return tuple(
        finding.test.replace("_", " ")
        for finding in findings
        if finding.status == Status.ERROR or finding.test in impossible
    )


def _asked(name: str, test: Test, suspect: DiagnosisContext, cut: list[str]) -> Finding:
    """A test's failure is a finding, too, and the others still run. One that the budget ends is noted in ``cut``."""
    if suspect.opaque and name in NEED_GRADIENTS:
        return Finding(test=name, status=Status.SKIPPED, reason="No gradient can be had of this model")
    try:
        if not suspect.exhausted:
            return test(suspect)
    except BudgetExhausted:
        suspect.exhausted = True
    except Exception as error:  # somebody else's model may do anything
        return Finding(test=name, status=Status.ERROR, reason=_said(error))
    cut.append(name)
    return Finding(test=name, status=Status.SKIPPED, reason="Not run to its end: the budget is spent")


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, IsthmusError) else f"{type(error).__name__}: {error}"


def _follow_up(
    suspect: DiagnosisContext,
    findings: list[Finding],
    known: dict[str, Callable[[DiagnosisContext], None]],
    tried: dict[str, Metric],
    cut: list[str],
) -> None:
    """Every remedy that a finding suggests and that was not tried yet, while examples stand.

    A warning suggests better gradients, and decisions of a few examples: many starts and queries cost more than all
    tests together.
    """
    failed = {remedy for finding in findings if finding.status == Status.FAIL for remedy in finding.remedies}
    warned = {remedy for finding in findings for remedy in finding.remedies if remedy in follow_up.AFTER_WARNINGS}
    wanted = failed | warned
    if suspect.opaque:  # a warning of its own; and nothing that needs a gradient can help
        wanted = {"substitute", "search", "decisions"}
    for name, remedy in known.items():
        if name in wanted and name not in tried and name not in cut and suspect.best.robust.any():
            if suspect.exhausted:
                cut.append(name)
                continue
            try:
                remedy(suspect)
            except BudgetExhausted:
                suspect.exhausted = True
                cut.append(name)
                tried[name] = metrics.accuracy(suspect.best.robust.numpy()).model_copy(update={"note": CUT})
                continue
            except Exception as error:  # see _asked
                tried[name] = Metric(value=None, unit="fraction", n=len(suspect), note=_said(error))
                continue
            tried[name] = metrics.accuracy(suspect.best.robust.numpy())
