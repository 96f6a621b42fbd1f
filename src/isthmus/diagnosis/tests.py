"""The diagnostic tests, in the order they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from isthmus.diagnosis import attack_tests, ensemble_tests, gradient_tests, model_tests
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.diagnostic_result import DiagnosticResult

Phase = Literal["cheap", "attacks", "ensembles"]
"""Follow-up attacks run after each phase. ``cheap`` tests cost little and suggest which of them are worth trying;
``attacks`` run an attack at length; ``ensembles`` use the strong ensemble, on what better gradients did not break."""

PHASES: tuple[Phase, ...] = get_args(Phase)


@dataclass(frozen=True)
class DiagnosticTest:
    """A diagnostic test.

    Attributes:
        run: the test; its result names it.
        phase: when it runs.
        needs_gradient: whether it is skipped for a model without gradients.
    """

    run: Callable[[DiagnosisContext], DiagnosticResult]
    phase: Phase
    needs_gradient: bool = False


TESTS: dict[str, DiagnosticTest] = {
    "outputs": DiagnosticTest(model_tests.outputs, "cheap"),
    "statefulness": DiagnosticTest(model_tests.statefulness, "cheap"),
    "batch_dependence": DiagnosticTest(model_tests.batch_dependence, "cheap"),
    "randomness": DiagnosticTest(model_tests.randomness, "cheap"),
    "gradients": DiagnosticTest(gradient_tests.gradients, "cheap", needs_gradient=True),
    "finite_differences": DiagnosticTest(gradient_tests.finite_differences, "cheap", needs_gradient=True),
    "loss_surface": DiagnosticTest(gradient_tests.loss_surface, "cheap", needs_gradient=True),
    "one_step": DiagnosticTest(attack_tests.one_step, "cheap", needs_gradient=True),
    "restarts": DiagnosticTest(attack_tests.restarts, "attacks", needs_gradient=True),
    "steps": DiagnosticTest(attack_tests.steps, "attacks", needs_gradient=True),
    "radius": DiagnosticTest(attack_tests.radius, "attacks", needs_gradient=True),
    "ensemble": DiagnosticTest(ensemble_tests.ensemble, "ensembles"),
    "black_box": DiagnosticTest(ensemble_tests.black_box, "ensembles"),
}
