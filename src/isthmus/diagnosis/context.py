"""The model under diagnosis and all that is known about its robustness.

Diagnostic tests share the expensive parts: the baseline attack, the strong ensemble, and every adversarial example
found so far. Whatever breaks an example lowers the corrected robust accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from isthmus.attacks import PGD, Square, transfer
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import BudgetExhausted
from isthmus.attacks.engine.evaluation import evaluate
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.result import RobustResult
from isthmus.attacks.suites import Suite, stages_of
from isthmus.attacks.threats import Threat
from isthmus.core.errors import ConfigError
from isthmus.core.randomness import fold, uniform
from isthmus.diagnosis.budget import Budget, Spending
from isthmus.diagnosis.merging import merge, reopen, without_images
from isthmus.diagnosis.model_queries import ModelQueries
from isthmus.diagnosis.wrappers import FiniteModel, PerImageModel

BASELINE = PGD(steps=40, loss="ce")
"""The attack that papers usually report: PGD with 40 steps on the cross-entropy, from one random start."""

BASELINE_WITHOUT_GRADIENTS = Square(queries=1000)
"""The baseline for models that have no gradient, not even by BPDA."""


class CutShort(BudgetExhausted):
    """An attack that the budget cut short, with what it had found by then."""

    def __init__(self, name: str, found: RobustResult) -> None:
        super().__init__(name)
        self.found = found


class DiagnosisContext:
    """State of a diagnosis: the model, its examples, and everything found so far.

    Args:
        model: from images in [0, 1] to logits. A random model must return a single draw; the verification and the
            attacks average over draws themselves.
        examples: float32 images, labels and keys, on the model's device.
        threat: the ball in which robustness is claimed.
        budget: strength and limits.
        stateful: whether predictions depend on earlier queries, so that ``model`` queries a fresh copy each time; None
            if that is not known.
        seed: of the global generators.
        progress: called with the passes spent so far.

    Attributes:
        best: everything that broke an example so far. Other results are kept without adversarial images.
        clean: the result on clean images.
        valid: examples with finite logits for the clean image; all others count as errors.
        random: whether the model is known to answer at random.
        finite: false once an attack has met NaN or infinity; attacks then see finite numbers in their place.
        gradient_model: a model with better gradients, once a follow-up attack has found one.
        queries: counted queries of the model.
        spending: passes and time so far.
        ensemble_passes: passes of the strong ensemble alone.

    Raises:
        ConfigError: the budget does not cover the clean images.
    """

    def __init__(
        self,
        model: nn.Module,
        examples: Batch,
        threat: Threat,
        budget: Budget,
        *,
        stateful: bool | None = False,
        seed: int = 0,
        progress: Callable[[int], None] = lambda passes: None,
    ) -> None:
        self.model, self.examples, self.threat, self.budget, self.seed = model, examples, threat, budget, seed
        self.stateful = stateful
        self.spending = Spending(budget, len(examples), progress)
        self.queries = ModelQueries(model, examples, self.spending)
        self.ensemble_passes = 0
        self.substitute: nn.Module | None = None
        self.gradient_model: nn.Module | None = None
        self.random = False
        self.finite = True
        try:
            self.best = self._evaluate(examples, [])
            self.clean = without_images(self.best)
            self.valid = ~self.best.invalid
            self.random = self.best.random
            _ = self.queries.differentiable
        except BudgetExhausted as spent:
            raise ConfigError(f"{budget} do not cover the clean images; allow more.") from spent

    def __len__(self) -> int:
        return len(self.best)

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.best.state.ranked.shape[1] + 1

    @property
    def chance(self) -> float:
        """Accuracy of the best constant prediction."""
        counts = self.examples.labels.bincount()
        return float(counts.max()) / len(self) if (counts > 0).sum() > 1 else 1 / self.num_classes

    @property
    def baseline_gradient_model(self) -> nn.Module | None:
        """What plain attacks take gradients from: the model with a gradient of zero, if it has none; else itself."""
        return self.queries.zero_gradient_model

    def sample(self, among: Bool[Tensor, " n"] | None = None, most: int | None = None) -> Int[Tensor, " some"]:
        """A sample of these examples (all by default), drawn by their keys."""
        rows = torch.arange(len(self)) if among is None else among.nonzero().squeeze(1)
        order = uniform(fold(self.examples.keys.cpu()[rows], "diagnosis/sample"), (1,)).squeeze(1).argsort(stable=True)
        return rows[order[: self.budget.sample if most is None else most]].sort().values

    @cached_property
    def baseline(self) -> RobustResult:
        """The baseline attack by itself.

        Examples at which it meets NaN or infinity are lost to it. All later attacks see finite numbers instead.
        """
        attack = BASELINE if self.queries.differentiable else BASELINE_WITHOUT_GRADIENTS
        try:
            found = self.attack("baseline", [attack], gradient_model=self.baseline_gradient_model, known=self.clean)
        except CutShort as cut:
            found = cut.found
        except BudgetExhausted:
            found = replace(self.clean, complete=False)
        self.spending.exhausted |= not found.complete
        if (found.invalid & self.valid).any():
            self.finite = False
            self._evaluate_as(FiniteModel(self.model))
            self.best = merge(self.best, torch.arange(len(self)), found)
        return without_images(found)

    @property
    def baseline_robust(self) -> Bool[Tensor, " n"]:
        """Examples that the baseline attack did not break."""
        return self.valid & ~self.baseline.broken

    @cached_property
    def strong(self) -> RobustResult:
        """The strong ensemble, on the examples that are robust when it is first needed."""
        suite = self.budget.strong_suite(self.num_classes, self.random, self.queries.differentiable)
        found = self.attack("ensemble", suite, gradient_model=self.gradient_model or self.baseline_gradient_model)
        self.ensemble_passes = found.forward_passes + found.backward_passes
        return without_images(found)

    def evaluate_single_images(self) -> None:
        """Give the model one image at a time from now on; the baseline stays as it was reported."""
        _ = self.baseline
        self._evaluate_as(PerImageModel(self.model))

    def evaluate_in_fixed_batch(self, others: Float[Tensor, "k c h w"]) -> None:
        """Give the model each image together with these others from now on, if it needs more than one image."""
        self._evaluate_as(PerImageModel(self.model, others))

    def _evaluate_as(self, model: nn.Module) -> None:
        """Continue with this wrapper of the model; only its clean errors are known yet."""
        best = self._evaluate(self.examples, [], model=model)
        queries = ModelQueries(model, self.examples, self.spending)
        _ = queries.differentiable  # may exceed the budget; everything stays as it was then
        self.model, self.best, self.queries = model, best, queries
        self.gradient_model = None
        self.best.state.stage[~self.valid] = 0  # invalid before: an error, whatever the wrapper returns
        self.clean = without_images(self.best)

    def attack(
        self,
        name: str,
        suite: Suite,
        *,
        gradient_model: nn.Module | None = None,
        known: RobustResult | None = None,
        rows: Int[Tensor, " some"] | None = None,
        threat: Threat | None = None,
        model: nn.Module | None = None,
    ) -> RobustResult:
        """Attack examples and keep the adversarial examples found.

        Args:
            name: prefix of the attacks' labels, as in ``name/apgd``.
            suite: as for :func:`isthmus.attacks.robust_accuracy`.
            gradient_model: what attacks take gradients from instead of the model; the model still verifies.
            known: earlier result; examples that it broke are not attacked again. By default everything known.
            rows: which examples; all by default.
            threat: another ball of the same norm. Nothing is kept then, and ``known`` is the result on clean images.
            model: another model to attack in that ball.

        Raises:
            CutShort: the budget cut the attack short; what it had found by then is kept.
            BudgetExhausted: the budget did not suffice to begin.
        """
        attacks = [each.renamed(prefix=f"{name}/") for each in stages_of(suite, self.threat.name)]
        chosen = torch.arange(len(self)) if rows is None else rows
        base = self.clean if threat is not None else self.best if known is None else known
        state, examples = base.state, self.examples
        if rows is not None:  # taking all of them would copy the whole data
            state, examples = state.take(rows), examples.take(rows)
        tries = torch.maximum(state.tries, self.best.state.tries[chosen])  # a confidence level is spent once
        part = replace(base, state=replace(state, tries=tries), examples=examples)
        found = self._evaluate(examples, attacks, part, gradient_model, threat, model)
        if threat is None:
            self.best = merge(self.best, chosen, found)
        self.spending.report()
        if not found.complete:
            raise CutShort(name, found)
        return found

    def _evaluate(
        self,
        examples: Batch,
        attacks: Sequence[Any],
        known: RobustResult | None = None,
        gradient_model: nn.Module | None = None,
        threat: Threat | None = None,
        model: nn.Module | None = None,
    ) -> RobustResult:
        """Run attacks within the remaining budget; without attacks, evaluate the clean images."""
        if not self.finite:
            gradient_model = FiniteModel(gradient_model or self.model)
        options = RunOptions(
            progress=lambda snapshot: self.spending.report(snapshot.passes),
            optimized_model=gradient_model,
            random=self.random,
            max_queries=self.spending.remaining,
            deadline=self.spending.deadline,
        )
        try:
            found = evaluate(
                model or self.model,
                examples,
                threat or self.threat,
                attacks,
                seed=self.seed,
                options=options,
                known=known,
            )
        except BudgetExhausted as spent:
            self.spending.add(spent.forwards, spent.backwards)
            raise
        self.spending.add(found.forward_passes, found.backward_passes)
        if found.random and not self.random:
            self._treat_as_random()
        return found

    def _treat_as_random(self) -> None:
        """Verify again, by the model's average prediction, everything that was found while it seemed deterministic."""
        self.random = True
        before = self.__dict__.get("best")
        if before is None:  # noticed on the clean images
            return
        for result in ("baseline", "strong"):
            self.__dict__.pop(result, None)
        self.best = reopen(before)  # counts even if the budget ends here
        self.best = self._evaluate(self.examples, [])
        self.clean = without_images(self.best)
        if (before.broken & (before.stage > 0)).any():
            self.attack("earlier", [transfer.transferred(before)])
