"""A classifier whose robust accuracy is in doubt, and everything that is found out about it.

Tests share what each of them pays for: the attack that is usually reported, the strong ensemble, and the adversarial
images that anything found. Whatever breaks an example counts towards the corrected robust accuracy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from isthmus.attacks import apgd, pgd, square, transfer
from isthmus.attacks.api import Suite, ready
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import BudgetExhausted, CountedModel
from isthmus.attacks.engine.evaluate import evaluate
from isthmus.attacks.engine.evaluation import RunOptions
from isthmus.attacks.result import RobustResult
from isthmus.attacks.threats import Threat
from isthmus.core.errors import ConfigError
from isthmus.core.randomness import fold, uniform
from isthmus.diagnosis.bpda.model import BPDAModel
from isthmus.diagnosis.views import Alone, Finite, LogProbabilities, WithoutGradient

USUAL = pgd.Config(steps=40, loss="ce")
"""What is usually reported: projected gradient descent of 40 steps on the cross-entropy, from one random start."""

BLIND = square.Config(queries=1000)
"""What stands for it where no gradient can be had, not even by differentiating what the model does."""


@dataclass(frozen=True)
class Budget:
    """How hard tests and follow-ups try.

    Attributes:
        ensemble: the strong suite that the usual attack is compared with.
        sample: examples of tests that ask more of each.
        restarts: further random starts.
        steps: of the long run.
        queries: of random search in the follow-up.
        draws: of a random model to average over at each step.
        passes: example-passes for each image that all tests and follow-ups may spend together, forward and backward. It
            is a hard limit: whatever would exceed it is cut short, and the verdict says what was not tried.
        seconds: of time, likewise. What is left out then depends on the machine, and no two runs need agree. None for
            no limit.
    """

    ensemble: str
    sample: int
    restarts: int
    steps: int
    queries: int
    draws: int
    passes: int
    seconds: float | None = None


QUICK = Budget(ensemble="fast", sample=100, restarts=5, steps=200, queries=2000, draws=8, passes=10_000)
FULL = Budget(ensemble="standard", sample=300, restarts=20, steps=500, queries=5000, draws=20, passes=50_000)


class DiagnosisContext:
    """See the module.

    Args:
        model: as it is judged; from images in [0, 1] to logits. Of a random model a single draw is asked at a time: the
            judge and the attacks that average do so themselves.
        examples: float32 images, labels and keys, on the model's device.
        threat: the ball that robustness is claimed in.
        budget: how hard to try.
        remembers: whether answers depend on what was asked before, so that ``model`` asks a fresh copy; None where that
            is not known.
        seed: of the global generators.
        tell: called as it goes, with the passes spent so far.

    Attributes:
        best: everything that broke an example so far; what is robust in it is what is left. Other results that are
            kept have no witnesses.
        answered: examples whose clean image gets a finite answer; no other answer is right.
        forwards, backwards: example-passes of everything asked.
        ensemble_passes: of the strong ensemble alone.
        bound: passes that are never exceeded, whatever is found: the budget's for each image.
        exhausted: whether the budget cut something short; then nothing more is tried.

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
        remembers: bool | None = False,
        seed: int = 0,
        tell: Callable[[int], None] = lambda passes: None,
    ) -> None:
        self.model, self.examples, self.threat, self.budget, self.seed = model, examples, threat, budget, seed
        self.remembers, self._tell = remembers, tell
        self.bound = budget.passes * len(examples)
        self.deadline = None if budget.seconds is None else time.monotonic() + budget.seconds
        self.exhausted = False
        self.forwards = self.backwards = self.ensemble_passes = 0
        self.substitute: nn.Module | None = None
        self.guide: nn.Module | None = None  # has better gradients than the model, once a follow-up has found one
        self.random = False  # until it answers one image differently
        self.finite = True  # until an attack meets NaN or infinity
        try:
            self.best = self._evaluated(examples, [], None, None)
            self.clean = _without_witnesses(self.best)
            self.answered = ~self.best.invalid
            self.random = self.best.random
            self.probabilities = self._answers_probabilities()
            _ = self.opaque
        except BudgetExhausted as spent:
            granted = (
                f"{budget.passes} passes for each image" if budget.seconds is None else f"{budget.seconds} seconds"
            )
            raise ConfigError(f"{granted} do not even cover the clean images; allow more.") from spent
        if self.probabilities and self.has_gradient:
            self.guide = LogProbabilities(model)

    def __len__(self) -> int:
        return len(self.best)

    @property
    def spent(self) -> int:
        """Example-passes so far, forward and backward."""
        return self.forwards + self.backwards

    def tell(self, further: int = 0) -> None:
        """Let whoever watches know how many passes are spent.

        Args:
            further: of an attack under way.
        """
        self._tell(self.spent + further)

    def book(self, forwards: int, backwards: int = 0) -> None:
        """Count passes that are about to be made otherwise than through :meth:`attack`.

        Raises:
            Spent: the budget does not cover them.
        """
        if self.spent + forwards + backwards > self.bound:
            raise BudgetExhausted("passes")
        self.forwards, self.backwards = self.forwards + forwards, self.backwards + backwards

    @property
    def classes(self) -> int:
        """How many logits the model gives."""
        return self.best.state.ranked.shape[1] + 1

    @property
    def chance(self) -> float:
        """Accuracy of the best constant answer: what no attack can take away from every classifier."""
        counts = self.examples.labels.bincount()
        return float(counts.max()) / len(self) if (counts > 0).sum() > 1 else 1 / self.classes

    @cached_property
    def usual(self) -> RobustResult:
        """The attack that is usually reported, by itself.

        Where it meets NaN or infinity, it has lost these examples. All other attacks then go on with numbers in their
        place.
        """
        attack = BLIND if self.opaque else USUAL
        try:
            found = self._attack("usual", [attack], self.usual_scout, self.clean)
        except BudgetExhausted:
            found = replace(self.clean, complete=False)
        self.exhausted |= not found.complete
        if (found.invalid & self.answered).any():
            self.finite = False
            self._judge(Finite(self.model))
            self._remember(torch.arange(len(self)), found)
        return _without_witnesses(found)

    @property
    def reported(self) -> Bool[Tensor, " n"]:
        """Which examples the usual attack has not broken."""
        return self.answered & ~self.usual.broken

    @cached_property
    def usual_scout(self) -> nn.Module | None:
        """What the usual attack asks: the model, with a gradient of zero where it has none."""
        return None if self.has_gradient else WithoutGradient(self.model)

    def judge_alone(self) -> None:
        """From here on, show the model one image at a time; what was usual stays as it was reported."""
        _ = self.usual
        self._judge(Alone(self.model))

    def judge_in_company(self, company: Float[Tensor, "k c h w"]) -> None:
        """From here on, show each image to the model with these others, as it cannot answer a single one."""
        self._judge(Alone(self.model, company))

    def _judge(self, model: nn.Module) -> None:
        """From here on, this view of the model is what counts; nothing but clean errors is known of it yet."""
        best = self._evaluated(self.examples, [], None, None, judge=model)  # may be cut short; then all stays as it was
        has_gradient = self._gives_gradient(model)
        opaque = not has_gradient and not self._gives_gradient(BPDAModel(model))
        self.model, self.best = model, best
        self.__dict__.pop("usual_scout", None)
        self.__dict__.update(has_gradient=has_gradient, opaque=opaque)
        self.guide = LogProbabilities(self.model) if self.probabilities and has_gradient else None
        self.best.state.stage[~self.answered] = 0  # set aside, whatever stands for their answer now
        self.clean = _without_witnesses(self.best)

    @cached_property
    def strong(self) -> RobustResult:
        """The strong ensemble, on what stands when it is first asked for."""
        found = self.attack("ensemble", self._ensemble(), scout=self.guide or self.usual_scout)
        self.ensemble_passes = found.forward_passes + found.backward_passes
        return _without_witnesses(found)

    def _ensemble(self) -> Suite:
        if self.opaque:
            return [square.Config(queries=self.budget.queries)]
        if not self.random:
            return self.budget.ensemble
        draws, targets = self.budget.draws, min(self.classes - 1, 3)
        return [
            apgd.Config(steps=50, loss="ce", eot=draws),
            apgd.Config(steps=50, loss="dlr" if targets > 1 else "margin", targets=targets, eot=draws),
        ]

    @cached_property
    def has_gradient(self) -> bool:
        """Whether the model's answers depend on its images differentiably at all."""
        return self._gives_gradient(self.model)

    @cached_property
    def opaque(self) -> bool:
        """Whether no gradient can be had, not even by differentiating what the model does: numpy, ONNX, a service."""
        return not self.has_gradient and not self._gives_gradient(BPDAModel(self.model))

    def _gives_gradient(self, model: nn.Module) -> bool:
        images, keys = self.examples.images[:2].clone().requires_grad_(), self.examples.keys[:2]
        self.book(len(images), len(images))
        try:
            with torch.enable_grad():
                logits = model(images.clone(), **({"keys": keys} if getattr(self.model, "takes_keys", False) else {}))
                (gradient,) = torch.autograd.grad(logits.float().sum(), images, allow_unused=True)
        except Exception:  # somebody else's code may raise anything where numpy meets autograd
            return False
        return gradient is not None

    def attack(
        self,
        called: str,
        suite: Suite,
        *,
        scout: nn.Module | None = None,
        known: RobustResult | None = None,
        rows: Int[Tensor, " some"] | None = None,
        threat: Threat | None = None,
        judge: nn.Module | None = None,
    ) -> RobustResult:
        """Attack some examples, and remember what fell.

        Args:
            called: what its attacks are called: ``called/apgd`` and so on.
            suite: as of :func:`isthmus.attacks.robust_accuracy`.
            scout: what attacks ask in place of the model, which judges all the same.
            known: what is known of the examples: those that it broke are not attacked again. By default all that is.
            rows: which examples; all by default.
            threat: another ball, of the same norm; then nothing is remembered, and ``known`` is the clean images.
            judge: another model that judges, in that ball.

        Raises:
            Spent: the budget cut it short; what it had found by then is remembered.
        """
        found = self._attack(called, suite, scout, known, rows, threat, judge)
        if not found.complete:
            raise BudgetExhausted(called)
        return found

    def _attack(
        self,
        called: str,
        suite: Suite,
        scout: nn.Module | None = None,
        known: RobustResult | None = None,
        rows: Int[Tensor, " some"] | None = None,
        threat: Threat | None = None,
        judge: nn.Module | None = None,
    ) -> RobustResult:
        """See :meth:`attack`; complete or not."""
        attacks = [replace(each, label=f"{called}/{each.label}") for each in ready(suite, self.threat.name)]
        chosen = torch.arange(len(self)) if rows is None else rows
        base = self.clean if threat is not None else self.best if known is None else known
        state, examples = base.state, self.examples
        if rows is not None:  # of all of them a copy would be as large as the data
            state, examples = state.take(rows), examples.take(rows)
        tries = torch.maximum(state.tries, self.best.state.tries[chosen])  # a level is spent once
        part = replace(base, state=replace(state, tries=tries), examples=examples)
        found = self._evaluated(examples, attacks, part, scout, threat, judge)
        if threat is None:
            self._remember(chosen, found)
        self.tell()
        return found

    def _evaluated(
        self,
        examples: Batch,
        attacks: Sequence[Any],
        known: RobustResult | None,
        scout: nn.Module | None,
        threat: Threat | None = None,
        judge: nn.Module | None = None,
    ) -> RobustResult:
        if not self.finite:
            scout = Finite(scout or self.model)
        asked, ball = judge or self.model, threat or self.threat
        options = RunOptions(
            optimized_model=scout, random=self.random, passes=self.bound - self.spent, deadline=self.deadline
        )
        try:
            found = evaluate(
                asked,
                examples,
                ball,
                attacks,
                seed=self.seed,
                options=options,
                progress=lambda snapshot: self.tell(snapshot.passes),
                known=known,
            )
        except BudgetExhausted as spent:
            self.forwards += spent.forwards
            self.backwards += spent.backwards
            raise
        self.forwards += found.forward_passes
        self.backwards += found.backward_passes
        if found.random and not self.random:
            self._turn_random()
        return found

    def _turn_random(self) -> None:
        """The model answers at random after all: judge anew, by its average, whatever broke an example until now."""
        self.random = True
        before = self.__dict__.get("best")
        if before is None:  # it was found out on the clean images
            return
        for seen in ("usual", "strong"):
            self.__dict__.pop(seen, None)
        state = before.state.take(torch.arange(len(before)))
        state.reopen((before.broken & (before.stage > 0)).nonzero().squeeze(1))  # counts even if the budget ends here
        self.best = replace(before, state=state)
        self.best = self._evaluated(self.examples, [], None, None)
        self.clean = _without_witnesses(self.best)
        if (before.broken & (before.stage > 0)).any():
            self.attack("earlier", [transfer.transferred(before)])

    def _remember(self, rows: Tensor, found: RobustResult) -> None:
        """Into the best, what it does not know yet."""
        best = self.best
        new = (found.broken & (found.stage > 0) & best.robust[rows]).nonzero().squeeze(1)
        labels = [*best.attacks, *(label for label in found.attacks if label not in best.attacks)]
        state, entries = best.state.take(torch.arange(len(best))), found.state.take(new)
        entries.stage = torch.tensor([labels.index(found.attacks[at]) for at in entries.stage.tolist()]).long()
        for name, column in state.columns().items():
            if name not in ("done", "scores", "marks"):  # of the attack that ran last
                column[rows[new]] = getattr(entries, name)
        state.tries[rows] = torch.maximum(state.tries[rows], found.state.tries)
        nearer = (found.state.margin < state.margin[rows]).nonzero().squeeze(1)
        state.margin[rows[nearer]] = found.state.margin[nearer]
        self.best = replace(best, attacks=tuple(labels), state=state, spent=(0,) * len(labels))

    # --- asking the model ---

    def _answers_probabilities(self) -> bool:
        batch = self.examples.take(torch.arange(min(64, len(self))))
        answers = self.logits(batch.images, batch.keys)
        return bool((answers >= 0).all() and ((answers.sum(1) - 1).abs() < 1e-3).all())

    def sample(self, among: Bool[Tensor, " n"] | None = None, most: int | None = None) -> Int[Tensor, " some"]:
        """Some of these examples (all by default), drawn by their keys."""
        rows = torch.arange(len(self)) if among is None else among.nonzero().squeeze(1)
        order = uniform(fold(self.examples.keys.cpu()[rows], "diagnosis/sample"), (1,)).squeeze(1).argsort(stable=True)
        return rows[order[: self.budget.sample if most is None else most]].sort().values

    def logits(self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"]) -> Float[Tensor, "n classes"]:
        """The model's answers, counted."""
        counted_model = self._counted()
        with torch.no_grad():
            answer = counted_model.logits(images, keys)
        self.forwards += counted_model.forward_passes
        return answer

    def _counted(self, scout: nn.Module | None = None) -> CountedModel:
        """The model, for as many passes as are left."""
        counted_model = CountedModel(self.model, scout)
        counted_model.limit, counted_model.deadline = self.bound - self.spent, self.deadline
        return counted_model

    def gradients(
        self, images: Float[Tensor, "n c h w"], batch: Batch, loss: str
    ) -> tuple[Float[Tensor, "n classes"], Float[Tensor, "n c h w"]]:
        """Logits, and the gradient of a loss against the labels, counted."""
        counted_model = self._counted(self.usual_scout)
        answer = counted_model.query(images, batch.keys, lambda logits: batch.ascend(loss, logits))
        self.forwards += counted_model.forward_passes
        self.backwards += counted_model.backward_passes
        return answer.logits, answer.gradient


def _without_witnesses(result: RobustResult) -> RobustResult:
    """What is known of each example, without images as large as the data; those that count are in ``best``."""
    nothing = torch.full((1, 1, 1, 1), torch.nan).expand_as(result.state.adversarial)
    return replace(result, state=replace(result.state, adversarial=nothing))
