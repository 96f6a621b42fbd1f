"""An evaluation under way: attacks one after another, each on what the ones before it left standing."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.attacks.attack import Stage
from isthmus.attacks.engine import optimized_model, saved_state
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.context import EvaluationContext
from isthmus.attacks.engine.counted_model import BudgetExhausted, CountedModel
from isthmus.attacks.engine.inputs import check_classes
from isthmus.attacks.engine.run_options import RunOptions, Snapshot
from isthmus.attacks.engine.stage import AttackTask, SharedStage, Underway, run_stage, runs_over
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.engine.verifier import Randomness, Verifier
from isthmus.attacks.result import CLEAN, RobustResult
from isthmus.attacks.threats import Threat
from isthmus.core import execution, files
from isthmus.core.errors import FileError, ModelError
from isthmus.core.preserve_state import device_of, seed_generators
from isthmus.models import outputs

SAVE_EVERY = 20.0
"""Seconds between two writes of an evaluation that keeps a file, at least."""

_WRITING = 20  # writing takes at most 1/20 of the time


class Evaluation:
    """Attacks on examples, how far they are, and the file that remembers it. Call :meth:`init`, then :meth:`run`.

    Attributes:
        context: model, examples and state.
        looked: whether the clean images were judged.
        verified: whether what was found was checked at the end; ``verification_passes``: what that took;
            ``unconfirmed``: how many examples it did not confirm.
        decided: which examples an earlier result had decided.
        at: attacks that are over.
        members: rows that the present one is tried on, once chosen.
        spent: example-passes of each stage.
    """

    def __init__(
        self,
        model: nn.Module,
        examples: Batch,
        threat: Threat,
        stages: Sequence[Stage],
        seed: int,
        options: RunOptions,
    ) -> None:
        self.model, self.stages = model, list(stages)
        self.seed, self.options, self.progress = seed, options, options.callback
        device = device_of(model, examples.images)
        if options.max_queries is not None and options.max_queries < optimized_model.PROBING:
            raise BudgetExhausted("passes")
        counted_model = (
            optimized_model.wrap(model, options.bf16, examples.images[: optimized_model.PROBE].to(device))
            if options.optimized_model is None
            else CountedModel(model, options.optimized_model, torch.bfloat16 if options.bf16 else None)
        )
        counted_model.limit, counted_model.deadline = options.max_queries, options.deadline
        size = options.batch_size or optimized_model.BATCH_SIZE
        self.context = EvaluationContext(
            Verifier(counted_model, threat), examples, EvaluationState.new(examples.images), device, size
        )
        self.labels = [CLEAN, *(stage.label for stage in stages)]
        self.looked = False
        self.verified = False
        self.unconfirmed = self.verification_passes = 0
        self.decided: Tensor | None = None
        self.at = 0
        self.members: Tensor | None = None
        self.spent = dict.fromkeys(self.labels, 0)
        self._saved, self._pause = time.monotonic(), SAVE_EVERY

    # --- beginning ---

    def init(self, known: RobustResult | None) -> None:
        """Take up a saved evaluation or what is known, or look at the clean images."""
        try:
            self._begin(known)
        except Randomness:
            self._start_over()

    def _begin(self, known: RobustResult | None) -> None:
        context, path = self.context, self.options.path
        counted_model = context.counted_model
        there = path if path is not None and files.exists(path) else None
        if there is not None:
            self._take_up(there)
        elif known is not None:
            self._go_on_from(known)
        random = (
            counted_model.takes_keys
            or self.options.random
            or optimized_model.is_random(counted_model, context.examples, context.device)
        )
        if random and self.looked and not counted_model.random:  # what is known was judged by the rule for others
            raise Randomness
        if random:
            self._turn_random()
        if there is not None:
            self._check_what_is_claimed(there)
        self._ready()
        if there is None:
            self.save()

    def _ready(self) -> None:
        """Look at the clean images, unless they are known, and find a batch size."""
        context = self.context
        if not self.looked:
            self._look_at_clean_images()
        context.counted_model.classes = context.classes
        fits = optimized_model.batch_size(context.counted_model, context.examples, context.device)
        context.size = context.counted_model.rows = self.options.batch_size or fits
        self._book(CLEAN)

    def _start_over(self) -> None:
        """Begin anew with the rule for random models; what was spent until now is booked on the clean images."""
        context, old = self.context, self.context.state
        context.verifier.start_over()
        context.state = EvaluationState.new(context.examples.images)
        context.state = replace(
            context.state, forwards=old.forwards, backwards=old.backwards, zero_gradients=old.zero_gradients
        )
        self.labels = [CLEAN, *(stage.label for stage in self.stages)]
        self.spent = dict.fromkeys(self.labels, 0)
        self.at, self.members, self.decided = 0, None, None
        self.looked = self.verified = False
        self._turn_random()
        seed_generators(self.seed, [context.device] if context.device.type == "cuda" else [])
        self._ready()
        self.save()

    def _turn_random(self) -> None:
        """Keep what a random model needs; an image that came near in another ball may lie outside this one."""
        context = self.context
        context.counted_model.random, images = True, context.examples.images.cpu()
        state = context.state
        if state.nearest is None or state.nearest_margin is None:
            context.state = state.for_random(images)
            return
        outside = ~context.threat.contains(state.nearest, images)
        state.nearest[outside], state.nearest_margin[outside] = images[outside], torch.inf

    def _go_on_from(self, known: RobustResult) -> None:
        """What a result at a smaller ε decided stays decided; only its passes are not of this evaluation."""
        self.labels = [*known.attacks, *(s.label for s in self.stages if s.label not in known.attacks)]
        self.spent = dict.fromkeys(self.labels, 0)
        self.decided = known.stage >= 0
        state = self.context.state = known.state.take(torch.arange(len(known)))
        for spent in (state.forwards, state.backwards, state.zero_gradients):
            spent.zero_()
        if known.random:
            self._turn_random()
        self.looked = True

    def _look_at_clean_images(self) -> None:
        """Judge the images themselves: errors are broken by "clean", and NaN or infinite logits set aside."""
        context, found, within = self.context, [], True
        state, examples = context.state, context.examples
        for rows in torch.split(torch.arange(len(examples)), context.size):
            batch = context.batch(rows)
            with context.booked(rows):
                logits, sure = self._read_clean(batch)
                check_classes(examples, logits.shape[1])
                finite, predicted = logits.isfinite().all(1), logits.argmax(1)
                errs = finite & ((predicted != batch.labels) | batch.reached(logits))
                context.verifier.ask_again(batch.images, batch.keys, logits, errs)
                wrong = batch.reached(logits) if sure is None else sure
            state.correct[rows] = (finite & (predicted == batch.labels)).cpu()
            broken = (finite & wrong).cpu()
            state.broken[rows], state.margin[rows] = broken, batch.margin(logits).float().cpu()
            if state.nearest_margin is not None:
                state.nearest_margin[rows] = state.margin[rows]
            state.stage[rows[broken | ~finite.cpu()]] = 0
            within &= context.counted_model.one_logit and outputs.are_probabilities(logits[:, 1])
            found.append(logits.scatter(1, batch.labels[:, None], -torch.inf).argsort(1, descending=True)[:, :-1].cpu())
        if within and (examples.labels == 0).any():
            raise ModelError(
                "The model gives one number in [0, 1] for each image, as probabilities are; a single logit means "
                "class 1 where it is positive. Return log-odds (torch.logit), or two columns."
            )
        state.ranked = torch.cat(found)
        state.adversarial[state.broken] = examples.images.cpu()[state.broken]
        if not (state.broken | state.robust).any():
            raise ModelError(
                "The model's logits are NaN or infinite on every clean image: training diverged, or the "
                "weights are of another model."
            )
        self.looked = True

    def _read_clean(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Logits of clean images; for a random model the ln of mean probabilities, and whether they surely succeed."""
        verifier = self.context.verifier
        if not verifier.counted_model.random:
            return verifier.clean(batch), None
        reading = verifier.read(batch.images, batch)
        return reading.mean.clamp(min=1e-30).log(), reading.sure

    # --- the file ---

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """What makes this evaluation another than one that a file may hold."""
        return {
            "threat": str(self.context.threat),
            "attacks": [[s.label, s.attack.model_dump(mode="json")] for s in self.stages],
            "seed": self.seed,
            "examples": optimized_model.fingerprint(self.context.examples.columns().values()),
            "model": optimized_model.fingerprint(self.model.state_dict().values()),
        }

    def save(self) -> None:
        """Write the evaluation to its file, where it has one."""
        if self.options.path is None:
            return
        counted_model = self.context.counted_model
        now = {
            "facts": self._facts,
            "labels": self.labels,
            "at": self.at,
            "members": None if self.members is None else self.members.tolist(),
            "passes": [counted_model.forward_passes, counted_model.backward_passes],
            "random": counted_model.random,
            "verified": self.verified,
            "unconfirmed": self.unconfirmed,
            "verification_passes": self.verification_passes,
            "spent": self.spent,
        }
        began = time.monotonic()
        self.context.state.save(self.options.path, json.dumps(now))
        self._saved = time.monotonic()
        self._pause = max(SAVE_EVERY, _WRITING * (self._saved - began))

    def _take_up(self, path: Path) -> None:
        state, now = saved_state.load(path, json.loads(json.dumps(self._facts)), self.context, self.stages)
        self.context.state, self.labels, self.at, self.looked = state, now.labels, now.at, True
        self.members = None if now.members is None else torch.tensor(now.members, dtype=torch.int64)
        self.context.counted_model.forward_passes, self.context.counted_model.backward_passes = now.passes
        self.spent, self.context.counted_model.random = now.spent, now.random
        self.verified, self.unconfirmed = now.verified, now.unconfirmed
        self.verification_passes = now.verification_passes

    def _check_what_is_claimed(self, path: Path) -> None:
        """Witnesses in the file must hold: equal weights do not make an equal model."""
        context, state = self.context, self.context.state
        state.settle()
        rows = (state.broken & (state.stage > 0)).nonzero().squeeze(1)
        for part in torch.split(rows, context.size) if len(rows) and not context.counted_model.random else ():
            images = state.adversarial[part].to(context.device)
            checked = context.verifier.proposals(images, context.batch(part), state.tries[part])
            if not checked.broken.all():
                raise FileError(
                    f"{path} holds an evaluation of a model that answers otherwise, though its weights are these; "
                    "delete it to begin anew, or choose another path."
                )

    # --- work ---

    def run(self) -> None:
        """Run the remaining attacks, and verify what they found."""
        try:
            self._run()
        except Randomness:
            self._start_over()
            self._run()

    def _run(self) -> None:
        state = self.context.state
        while self.at < len(self.stages):
            stage = self.stages[self.at]
            if self.members is None:
                self.members = self._members(stage)
                state.open_stage(stage.attack.runs_in(self.context.threat, self.context.classes))
            self._attack(stage, self.members)
            self.at, self.members = self.at + 1, None
            self.save()
            self._tell(stage)
        if self.options.verify and not self.verified:
            before = self.context.counted_model.forward_passes
            self._read() if self.context.counted_model.random else self._verify()
            self.verified, self.verification_passes = True, self.context.counted_model.forward_passes - before
            self.save()

    def _attack(self, stage: Stage, members: Tensor) -> None:
        try:
            with closing(self._steps(stage, members)) as steps:  # closed, it takes in what workers have found
                for step in steps:
                    underway = step or Underway()
                    self._book(stage.label)
                    self._tell(stage, underway)
                    self.context.counted_model.check(underway.forwards + underway.backwards)
                    if time.monotonic() - self._saved > self._pause:
                        self.save()
        except (Randomness, BudgetExhausted):
            raise
        except Exception:
            self.context.state.settle()
            self.save()
            raise

    def _read(self) -> None:
        """Read a random model's average at the image that came closest to each example's success: that is what counts.

        What an earlier result decided stays decided. An example that is not finite there is set aside.
        """
        context, state = self.context, self.context.state
        chosen = state.robust | state.broken
        chosen &= True if self.decided is None else ~self.decided
        found = []
        for rows in torch.split(chosen.nonzero().squeeze(1), context.size) if chosen.any() else ():
            with context.booked(rows):
                found.append((rows, context.verifier.read(self._closest(rows).to(context.device), context.batch(rows))))
        for rows, reading in found:  # all of them or none: an interrupted reading begins again
            images, wrong = self._closest(rows), reading.wrong.cpu()
            lost = state.broken[rows] & ~wrong
            self.unconfirmed += int(lost.sum())
            state.reopen(rows[lost])
            new = wrong & ~state.broken[rows]
            state.enter(rows, reading)
            state.settle_on(rows[new], images[new])
        self._book(self.labels[-1])

    def _closest(self, rows: Tensor) -> Tensor:
        """The adversarial example of each row, or the image that came closest to one."""
        state = self.context.state
        assert state.nearest is not None
        broken = state.broken[rows][:, None, None, None]
        return torch.where(broken, state.adversarial[rows], state.nearest[rows])

    def _verify(self) -> None:
        """Check adversarial examples on a further pass; those that it does not confirm count as robust."""
        context, state = self.context, self.context.state
        new = state.broken if self.decided is None else state.broken & ~self.decided
        for stage, label in enumerate(self.labels[1:], 1):  # clean errors were asked about twice already
            found = (new & (state.stage == stage)).nonzero().squeeze(1)
            for rows in torch.split(found, context.size) if len(found) else ():
                images, batch = state.adversarial[rows].to(context.device), context.batch(rows)
                with context.booked(rows):
                    refuted = rows[~context.verifier.holds(images, batch).cpu()]
                self.unconfirmed += len(refuted)
                state.reopen(refuted)
            self._book(label)

    def _members(self, stage: Stage) -> Tensor:
        chosen = self.context.state.robust
        if stage.among is not None:
            chosen = chosen & stage.among(self.context.state, self.context.examples.keys.cpu())
        return chosen.nonzero().squeeze(1)

    def _steps(self, stage: Stage, members: Tensor) -> Generator[Underway | None, None, None]:
        """Run a stage step by step, by workers if there are any; yield what they have not handed in yet."""
        context, position, executor = self.context, self.labels.index(stage.label), execution.current()
        # an optimised model that was given, or a verifier with a memory, may live in this process alone
        local = self.options.optimized_model is not None or type(context.verifier) is not Verifier
        if executor is None or local or len(members) < 2:
            yield from run_stage(context, stage, members, position)
            return
        task = AttackTask.of(executor, self.model, self.options.bf16)
        with closing(SharedStage(executor, task, context, stage, position, self.seed).run(members)) as shared:
            yield from shared

    def _book(self, label: str) -> None:
        """Put the passes that are on no stage's account yet on this one's."""
        counted_model = self.context.counted_model
        self.spent[label] += counted_model.forward_passes + counted_model.backward_passes - sum(self.spent.values())

    def _tell(self, stage: Stage, underway: Underway | None = None) -> None:
        if self.progress is None:
            return
        underway = underway or Underway()
        state, members = self.context.state, self.members
        n, share = len(state), 1.0
        if members is not None and len(members):
            runs = max(state.scores.shape[1], 1)
            share = (runs_over(state, members) + underway.runs) / (runs * len(members))
        done = (self.at + (share if members is not None else 0)) * n
        robust = int(state.robust.sum()) - underway.decided
        spent = sum(self.spent.values()) + underway.forwards + underway.backwards
        self.progress(Snapshot(done, len(self.stages) * n, stage.label, robust, n, spent))

    # --- what came of it ---

    def interrupted(self) -> RobustResult:
        """What is known after an interruption at any moment; saved, too."""
        self.context.state.settle()
        self._book(self.stages[min(self.at, len(self.stages) - 1)].label if self.stages else CLEAN)
        self.save()
        return self.result(complete=False)

    def result(self, complete: bool = True) -> RobustResult:
        """What is known now."""
        context = self.context
        return RobustResult(
            threat=context.threat,
            attacks=tuple(self.labels),
            examples=context.examples.to(torch.device("cpu")),
            state=context.state,
            forward_passes=context.counted_model.forward_passes,
            backward_passes=context.counted_model.backward_passes,
            random=context.counted_model.random,
            complete=complete,
            spent=tuple(self.spent[label] for label in self.labels),
            seed=self.seed,
            verified=self.verified,
            unconfirmed=self.unconfirmed,
            verification_passes=self.verification_passes,
        )
