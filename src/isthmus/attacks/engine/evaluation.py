"""One evaluation: attacks in order, each on the examples that are still robust.

Attacks only propose images. The verifier decides which of them break an example, so a weak or faulty attack cannot make
the result wrong, only too high.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.attacks.attack import Stage
from isthmus.attacks.engine import optimized_model, probes
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.context import EvaluationContext
from isthmus.attacks.engine.counted_model import BudgetExhausted, CountedModel
from isthmus.attacks.engine.evaluation_file import EvaluationFile, EvaluationProgress
from isthmus.attacks.engine.run_options import RunOptions, Snapshot
from isthmus.attacks.engine.stage import AttackTask, SharedStage, Underway, run_stage, runs_over
from isthmus.attacks.engine.state import EvaluationState, fingerprint
from isthmus.attacks.engine.verifier import Randomness, Verifier
from isthmus.attacks.result import CLEAN, RobustResult
from isthmus.attacks.threats import Threat
from isthmus.core import execution
from isthmus.core.preserve_state import device_of, preserve_state, seed_generators


def evaluate(
    model: nn.Module,
    examples: Batch,
    threat: Threat,
    stages: Sequence[Stage],
    *,
    seed: int = 0,
    options: RunOptions = RunOptions(),
    known: RobustResult | None = None,
) -> RobustResult:
    """Run attacks one after another, each on the examples that are still robust.

    :func:`isthmus.attacks.robust_accuracy` does the same with checked, friendlier arguments.

    Args:
        model: images to logits; evaluated in eval mode, and left as it was.
        examples: images float32 in [0, 1], with labels and keys; see :func:`isthmus.attacks.engine.inputs.examples`.
        seed: of the global generators, for models that draw their own noise; other randomness follows the keys.
        known: a result for the same model, examples and seed at a smaller ε or with fewer attacks. Examples that it
            decided stay decided, without another pass.

    Raises:
        BudgetExhausted: the passes or the time of ``options`` do not cover the clean images. If they end later, the
            result is what was known by then, and not ``complete``. Other errors are those of ``robust_accuracy``.
    """
    with preserve_state(model, device_of(model, examples.images), seed):
        evaluation = Evaluation(model, examples, threat, stages, seed, options)
        try:
            evaluation.init(known)
            evaluation.run()
        except KeyboardInterrupt:
            if not evaluation.started:
                raise
            raise Interrupted(evaluation.interrupted()) from None
        except BudgetExhausted as spent:
            if not evaluation.started:
                counted_model = evaluation.context.counted_model
                spent.forwards, spent.backwards = counted_model.forward_passes, counted_model.backward_passes
                raise
            return replace(evaluation.interrupted(), exhausted=True)
        return evaluation.result()


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during an evaluation. ``result`` is what was known by then: a valid upper bound on robust accuracy."""

    def __init__(self, result: RobustResult) -> None:
        super().__init__("interrupted; .result holds what was found so far")
        self.result = result


class Evaluation:
    """Attacks on examples, their progress, and the file to resume from. Call :meth:`init`, then :meth:`run`.

    Attributes:
        context: model, examples and state.
        progress: attacks that are over, passes, verification.
        started: whether the clean images were evaluated.
        decided: which examples an earlier result had decided.
    """

    def __init__(
        self, model: nn.Module, examples: Batch, threat: Threat, stages: Sequence[Stage], seed: int, options: RunOptions
    ) -> None:
        self.model, self.stages = model, list(stages)
        self.seed, self.options, self.report = seed, options, options.callback
        device = device_of(model, examples.images)
        if options.max_queries is not None and options.max_queries < optimized_model.PROBING:
            raise BudgetExhausted("passes")
        counted_model = (
            optimized_model.wrap(model, options.bf16, examples.images[: optimized_model.PROBE].to(device))
            if options.optimized_model is None
            else CountedModel(model, options.optimized_model, torch.bfloat16 if options.bf16 else None)
        )
        counted_model.limit, counted_model.deadline = options.max_queries, options.deadline
        size = options.batch_size or probes.BATCH_SIZE
        state = EvaluationState.new(examples.images)
        self.context = EvaluationContext(Verifier(counted_model, threat), examples, state, device, size)
        self.file = None if options.path is None else EvaluationFile(options.path)
        self.progress = EvaluationProgress.new({} if self.file is None else self._facts(), self._labels)
        self.started = False
        self.decided: Tensor | None = None

    @property
    def _labels(self) -> list[str]:
        return [CLEAN, *(stage.label for stage in self.stages)]

    def _facts(self) -> dict[str, Any]:
        """What the evaluation consists of; a file with other facts is of another evaluation."""
        return {
            "threat": str(self.context.threat),
            "attacks": [[s.label, s.attack.model_dump(mode="json")] for s in self.stages],
            "seed": self.seed,
            "examples": fingerprint(self.context.examples.columns().values()),
            "model": fingerprint(self.model.state_dict().values()),
        }

    # --- beginning ---

    def init(self, known: RobustResult | None) -> None:
        """Resume from the file, start from a known result, or evaluate the clean images."""
        try:
            self._init(known)
        except Randomness:
            self._start_over()

    def _init(self, known: RobustResult | None) -> None:
        context, model = self.context, self.context.counted_model
        resumed = self.file if self.file is not None and self.file.exists else None
        if resumed is not None:
            context.state, self.progress = resumed.load(self.progress.facts, context, self.stages)
            model.forward_passes, model.backward_passes = self.progress.passes
            model.random, self.started = self.progress.random, True
        elif known is not None:
            self._start_from(known)
        random = model.takes_keys or self.options.random or probes.is_random(model, context.examples, context.device)
        if random and self.started and not model.random:  # what is known was found by the rule for other models
            raise Randomness
        if random:
            context.make_random()
        if resumed is not None:
            resumed.check_examples(context)
        self._prepare()
        if resumed is None:
            self.save()

    def _prepare(self) -> None:
        """Evaluate the clean images, unless that is done, and find a batch size."""
        context, model = self.context, self.context.counted_model
        if not self.started:
            context.evaluate_clean()
            self.started = True
        model.classes = context.classes
        fits = probes.batch_size(model, context.examples, context.device)
        context.size = model.rows = self.options.batch_size or fits
        self._book(CLEAN)

    def _start_over(self) -> None:
        """Start again with the rule for random models; passes until now are booked on the clean images."""
        context = self.context
        context.start_over()
        context.make_random()
        self.progress = EvaluationProgress.new(self.progress.facts, self._labels)
        self.decided, self.started = None, False
        seed_generators(self.seed, [context.device] if context.device.type == "cuda" else [])
        self._prepare()
        self.save()

    def _start_from(self, known: RobustResult) -> None:
        """Take over what a result at a smaller ε decided, but not its passes."""
        labels = [*known.attacks, *(s.label for s in self.stages if s.label not in known.attacks)]
        self.progress = EvaluationProgress.new(self.progress.facts, labels)
        self.decided = known.stage >= 0
        state = self.context.state = known.state.take(torch.arange(len(known)))
        for spent in (state.forwards, state.backwards, state.zero_gradients):
            spent.zero_()
        if known.random:
            self.context.make_random()
        self.started = True

    def save(self) -> None:
        """Write the evaluation to its file, if it has one."""
        if self.file is not None:
            model = self.context.counted_model
            self.progress.random, self.progress.passes = model.random, (model.forward_passes, model.backward_passes)
            self.file.save(self.context.state, self.progress)

    # --- the attacks ---

    def run(self) -> None:
        """Run the remaining attacks, and verify what they found."""
        try:
            self._run()
        except Randomness:
            self._start_over()
            self._run()

    def _run(self) -> None:
        progress, state = self.progress, self.context.state
        while progress.at < len(self.stages):
            stage = self.stages[progress.at]
            if progress.members is None:
                progress.members = self._members(stage).tolist()
                state.open_stage(stage.attack.runs_in(self.context.threat, self.context.classes))
            self._attack(stage, torch.tensor(progress.members, dtype=torch.int64))
            ended = not stage.grows or not progress.members
            progress.at, progress.members = progress.at + ended, None
            self.save()
            self._report(stage)
        if self.options.verify and not progress.verified:
            self._verify()
            self.save()

    def _members(self, stage: Stage) -> Tensor:
        chosen = self.context.state.robust
        if stage.among is not None:
            chosen = chosen & stage.among(self.context.state, self.context.examples.keys.cpu())
        return chosen.nonzero().squeeze(1)

    def _attack(self, stage: Stage, members: Tensor) -> None:
        try:
            with closing(self._steps(stage, members)) as steps:  # on closing, it records what workers have found
                for step in steps:
                    underway = step or Underway()
                    self._book(stage.label)
                    self._report(stage, underway)
                    self.context.counted_model.check(underway.forwards + underway.backwards)
                    if self.file is not None and self.file.due:
                        self.save()
        except (Randomness, BudgetExhausted):
            raise
        except Exception:
            self.context.state.settle()
            self.save()
            raise

    def _steps(self, stage: Stage, members: Tensor) -> Generator[Underway | None, None, None]:
        """Run a stage step by step, by workers if there are any; yield their progress."""
        context, position, executor = self.context, self.progress.labels.index(stage.label), execution.current()
        # an optimized model that was given, or another verifier, may exist in this process alone
        local = self.options.optimized_model is not None or type(context.verifier) is not Verifier
        if executor is None or local or len(members) < 2:
            return run_stage(context, stage, members, position)
        task = AttackTask.of(executor, self.model, self.options.bf16)
        return SharedStage(executor, task, context, stage, position, self.seed).run(members)

    def _verify(self) -> None:
        """Check adversarial examples once more, or compute a random model's averages. Earlier results stay decided."""
        context, progress, before = self.context, self.progress, self.context.counted_model.forward_passes
        new = torch.ones_like(context.state.broken) if self.decided is None else ~self.decided
        if context.counted_model.random:
            chosen = new & (context.state.robust | context.state.broken)
            for unconfirmed in context.read_averages(chosen.nonzero().squeeze(1)):
                progress.unconfirmed += unconfirmed
            self._book(progress.labels[-1])
        else:
            new &= context.state.broken
            for stage, label in enumerate(progress.labels[1:], 1):  # clean errors were queried twice already
                for unconfirmed in context.verify((new & (context.state.stage == stage)).nonzero().squeeze(1)):
                    progress.unconfirmed += unconfirmed
                self._book(label)
        progress.verified, progress.verification_passes = True, context.counted_model.forward_passes - before

    def _book(self, label: str) -> None:
        """Book the passes that belong to no stage yet on this one."""
        model, spent = self.context.counted_model, self.progress.spent
        spent[label] += model.forward_passes + model.backward_passes - sum(spent.values())

    def _report(self, stage: Stage, underway: Underway | None = None) -> None:
        if self.report is None:
            return
        state, progress, underway = self.context.state, self.progress, underway or Underway()
        n, share = len(state), 0.0 if progress.members is None else 1.0
        if progress.members:
            runs = max(state.scores.shape[1], 1)
            share = (runs_over(state, torch.tensor(progress.members)) + underway.runs) / (runs * len(progress.members))
        robust = int(state.robust.sum()) - underway.decided
        spent = sum(progress.spent.values()) + underway.forwards + underway.backwards
        done = (progress.at + share) * n
        self.report(Snapshot(done, len(self.stages) * n, stage.label, robust, n, spent))

    # --- the result ---

    def interrupted(self) -> RobustResult:
        """The result after an interruption at any moment; saved, too."""
        self.context.state.settle()
        self._book(self.stages[min(self.progress.at, len(self.stages) - 1)].label if self.stages else CLEAN)
        self.save()
        return self.result(complete=False)

    def result(self, complete: bool = True) -> RobustResult:
        """The result so far."""
        context, progress = self.context, self.progress
        return RobustResult(
            threat=context.threat,
            attacks=tuple(progress.labels),
            examples=context.examples.to(torch.device("cpu")),
            state=context.state,
            forward_passes=context.counted_model.forward_passes,
            backward_passes=context.counted_model.backward_passes,
            random=context.counted_model.random,
            complete=complete,
            spent=tuple(progress.spent[label] for label in progress.labels),
            seed=self.seed,
            verified=progress.verified,
            unconfirmed=progress.unconfirmed,
            verification_passes=progress.verification_passes,
        )
