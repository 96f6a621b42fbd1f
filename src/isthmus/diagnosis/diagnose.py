"""The diagnosis: run the diagnostic tests, the follow-up attacks they suggest, and decide on a verdict."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from isthmus import metrics
from isthmus.attacks.engine.counted_model import BudgetExhausted
from isthmus.attacks.result import RobustResult
from isthmus.core.errors import IsthmusError
from isthmus.core.format import purpose_title
from isthmus.core.types import Metric, Status
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.diagnostic_result import SEVERITY, DiagnosticResult
from isthmus.diagnosis.follow_ups import FOLLOW_UPS, FollowUp
from isthmus.diagnosis.tests import PHASES, TESTS, Phase
from isthmus.diagnosis.verdict import Evidence, Verdict, decide

CUT_SHORT = "cut short: the budget is exhausted"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Diagnosis:
    """Everything that a diagnosis found.

    Attributes:
        verdict: on the reported accuracy.
        tests: results of the diagnostic tests, evidence against the robustness first.
        follow_ups: robust accuracy after each follow-up attack, in the order they ran.
        baseline_robust: examples that the baseline attack did not break.
        result: what broke each example, with its adversarial image.
        chance: accuracy of the best constant prediction.
        forward_passes, backward_passes: example-passes of everything.
        ensemble_passes: those of the strong ensemble alone.
        limit: example-passes that could not be exceeded.
    """

    verdict: Verdict
    tests: tuple[DiagnosticResult, ...]
    follow_ups: dict[str, Metric]
    baseline_robust: Bool[Tensor, " n"]
    result: RobustResult
    chance: float
    forward_passes: int
    backward_passes: int
    ensemble_passes: int
    limit: int


def diagnose(context: DiagnosisContext, claimed: float | None = None) -> Diagnosis:
    """Run all tests and follow-up attacks within the budget.

    Args:
        context: the model, its examples and the budget.
        claimed: robust accuracy to decide about, in [0, 1]; None for that against the baseline attack.
    """
    n, spending = len(context), context.spending
    log.info("diagnosis: at most %d passes per image, %d in all for %d images", spending.limit // n, spending.limit, n)
    run = _Run(context)
    for phase in PHASES:
        run.run_tests(phase)
        run.run_follow_ups(last=phase == PHASES[-1])
    return Diagnosis(
        verdict=run.verdict(claimed),
        tests=tuple(sorted(run.results.values(), key=lambda result: SEVERITY[result.status])),
        follow_ups=run.follow_ups,
        baseline_robust=context.baseline_robust,
        result=context.best,
        chance=context.chance,
        forward_passes=spending.forward_passes,
        backward_passes=spending.backward_passes,
        ensemble_passes=context.ensemble_passes,
        limit=spending.limit,
    )


class _Run:
    """A diagnosis in progress.

    Attributes:
        results: of the diagnostic tests so far, by name.
        follow_ups: robust accuracy after each follow-up attack so far.
        not_tried: tests and follow-up attacks that the budget left out or cut short.
    """

    def __init__(self, context: DiagnosisContext) -> None:
        self.context = context
        self.results: dict[str, DiagnosticResult] = {}
        self.follow_ups: dict[str, Metric] = {}
        self.not_tried: list[str] = []

    def run_tests(self, phase: Phase) -> None:
        """Run the tests of a phase. If one raises an error, that is its result, and the others still run."""
        for name, test in TESTS.items():
            if test.phase == phase:
                self.results[name] = self._tested(name)
        randomness = self.results.get("randomness")
        if self.context.random and randomness is not None and randomness.status == Status.PASS:
            # an attack has found that the model is random away from the clean images
            self.results["randomness"] = self._tested("randomness")

    def _tested(self, name: str) -> DiagnosticResult:
        test, spending = TESTS[name], self.context.spending
        if test.needs_gradient and not self.context.queries.differentiable:
            return DiagnosticResult(test=name, status=Status.SKIPPED, reason="The model has no gradient")
        try:
            if not spending.exhausted:
                return test.run(self.context)
        except BudgetExhausted:
            spending.exhausted = True
        except Exception as error:  # a user's model may raise anything
            return DiagnosticResult(test=name, status=Status.ERROR, reason=_message(error))
        self.not_tried.append(name)
        return DiagnosticResult(test=name, status=Status.SKIPPED, reason="Not finished: the budget is exhausted")

    def run_follow_ups(self, last: bool) -> None:
        """Run the follow-up attacks that results suggest and that have not run, while any example is robust.

        Args:
            last: whether all tests have run, so that the late follow-up attacks run, too.
        """
        suggested = self._suggested()
        for name, follow_up in FOLLOW_UPS.items():
            new = name in suggested and name not in self.follow_ups and name not in self.not_tried
            if new and (last or not follow_up.late) and self.context.best.robust.any():
                self._follow(name, follow_up)

    def _suggested(self) -> set[str]:
        if not self.context.queries.differentiable:
            return {name for name, each in FOLLOW_UPS.items() if not each.needs_gradient}
        return {
            name
            for result in self.results.values()
            for name in result.follow_ups
            if result.status == Status.FAIL or FOLLOW_UPS[name].after_warning
        }

    def _follow(self, name: str, follow_up: FollowUp) -> None:
        context, note = self.context, ""
        if context.spending.exhausted:
            self.not_tried.append(name)
            return
        try:
            follow_up.run(context)
        except BudgetExhausted:
            context.spending.exhausted = True
            self.not_tried.append(name)
            note = CUT_SHORT
        except Exception as error:  # a user's model may raise anything
            self.follow_ups[name] = Metric(value=None, unit="fraction", n=len(context), note=_message(error))
            return
        self.follow_ups[name] = metrics.accuracy(context.best.robust.numpy()).model_copy(update={"note": note})

    def verdict(self, claimed: float | None) -> Verdict:
        """The verdict on the claimed accuracy, or on that against the baseline attack."""
        context = self.context
        baseline, corrected = context.baseline_robust.numpy(), context.best.robust.numpy()
        not_tried = self.not_tried if context.baseline.complete else ["baseline attack", *self.not_tried]
        difference = metrics.paired_difference(baseline & corrected, baseline)
        evidence = Evidence(
            failed=_named(name for name, result in self.results.items() if result.status == Status.FAIL),
            missing=self._missing(difference),
            untested=_named(self._untested()),
            not_tried=_named(not_tried),
            gradient=context.queries.has_gradient,
        )
        accuracy = metrics.accuracy
        return decide(claimed, accuracy(baseline), accuracy(corrected), difference, context.chance, evidence)

    def _missing(self, difference: Metric) -> tuple[str, ...]:
        """Reasons why an accuracy that is not shown to be too high cannot be said to hold."""
        missing = []
        errors = [name for name, result in self.results.items() if result.status == Status.ERROR]
        errors += [name for name, metric in self.follow_ups.items() if metric.value is None]
        if errors:
            missing.append(f"{' and '.join(_named(errors))} raised an error")
        if not self.context.queries.differentiable:
            missing.append("the model has no gradient, so only gradient-free attacks were tried")
        elif not self.context.queries.has_gradient:
            missing.append(
                "the model's backward pass does not reach the images (a detach(), no_grad() or conversion inside it?), "
                "so PGD on it is one random start, and attacks follow the forward pass instead"
            )
        impossible = self.results["radius"].details.get("impossible")
        if impossible and not (difference.interval and difference.interval.low > 0):
            missing.append(f"{impossible}, and no attack broke more, so none is shown to work on this model")
        return tuple(missing)

    def _untested(self) -> list[str]:
        """Tests that raised an error, or that need a gradient or a copy that the model does not have."""
        context = self.context
        return [
            name
            for name, result in self.results.items()
            if result.status == Status.ERROR
            or (TESTS[name].needs_gradient and not context.queries.differentiable)
            or (name == "statefulness" and context.stateful is None)
        ]


def _named(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(purpose_title, names)))


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, IsthmusError) else f"{type(error).__name__}: {error}"
