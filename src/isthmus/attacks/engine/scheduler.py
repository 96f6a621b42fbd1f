"""Batches that stay full: runs of an iterative attack from many examples and restarts share each query.

A run leaves the batch as soon as its example is broken or its budget is spent, and the next waiting run takes its row.
The runs of an example (restarts, target classes) follow one another, in rounds over all examples, so that no pass is
spent on a second run of an example that the first one breaks.

If fewer examples wait than there are free rows, the runs of one example go side by side, unless its first run may still
break it soon: the batch stays full, down to a single example. If several succeed, the run with the lowest number
counts, once the runs before it are over. So the result for an example depends on its own key alone, not on batch size,
order or other examples. Only its cost does, by the runs that another run's success made superfluous.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isthmus.attacks.attack import AttackState, IterativeAttack
from isthmus.attacks.engine.batch import Batch, Rows
from isthmus.attacks.engine.context import EvaluationContext
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.verifier import VerifierResult
from isthmus.attacks.losses import ranked_classes
from isthmus.core.randomness import fold

SOON = 8
"""Most successes come within this many steps; later runs of an example wait until then."""


@dataclass
class Slots(Rows):
    """The rows of the batch: the example's row in the state, its run's number, and the run's best so far.

    ``closest`` and ``logits`` are those of the smallest margin, and empty where nobody asks for them.
    """

    example: Tensor
    number: Tensor
    tries: Tensor
    margin: Tensor
    closest: Tensor
    logits: Tensor


@dataclass
class Found(Rows):
    """Runs that decided their examples: what the state is to record."""

    example: Tensor
    number: Tensor
    step: Tensor
    target_class: Tensor
    images: Tensor
    broken: Tensor
    finite: Tensor
    margin: Tensor


class BatchScheduler:
    """Runs one iterative attack on examples until each is decided or its runs are over.

    Args:
        context: model, examples and state; the state is updated at every step.
        attack: the attack, specialised to the threat.
        label: of its stage; the keys of its runs derive from it.
        stage: its position in the state's count.
    """

    def __init__(self, context: EvaluationContext, attack: IterativeAttack[Any], label: str, stage: int) -> None:
        self.attack, self.label, self.stage = attack, label, stage
        self.context, self.state, self.size = context, context.state, context.size
        self.keeps_best = context.counted_model.random and attack.inside
        self.side_by_side = attack.runs > 1 and not context.verifier.in_turn
        self.waiting: deque[int] = deque()
        self.numbers = torch.arange(attack.runs)
        self.after = torch.tensor([attack.after(number) for number in range(attack.runs)])
        self.started = torch.full((len(self.state),), -1)  # the last run of each example that was started here
        self.found: Found | None = None  # successes that wait for their examples' earlier runs
        self._slots: Slots | None = None
        self.batch: Batch
        self.runs: AttackState

    @property
    def slots(self) -> Slots:
        """The rows of the batch, if there is one."""
        assert self._slots is not None
        return self._slots

    def run(self, rows: Tensor) -> Generator[None, None, None]:
        """Run the attack on these examples; yield after every step, when the state is consistent."""
        left = rows[self.state.robust[rows] & (self.state.done[rows] < self.attack.runs)]
        # those with fewer runs go first, so that a resumed evaluation continues in the same order
        self.waiting.extend(left[self.state.done[left].argsort(stable=True)].tolist())
        if len(left) > self.size:  # batches of one size, rather than full ones and a small last one
            self.size = math.ceil(len(left) / math.ceil(len(left) / self.size))
        while self.waiting or self._slots is not None:
            self._fill()
            self._step()
            yield

    # --- starting runs ---

    def _fill(self) -> None:
        free = self.size - (0 if self._slots is None else len(self._slots))
        if free <= 0:
            return
        example = torch.tensor([self.waiting.popleft() for _ in range(min(free, len(self.waiting)))], dtype=torch.int64)
        number = self._next(example)
        self.started[example] = number
        if self.side_by_side and free > len(example):
            beside = self._beside(example[number > 0], free - len(example))
            example, number = torch.cat([example, beside[0]]), torch.cat([number, beside[1]])
        if len(example) == 0:
            return
        slots, batch, runs = self._start(example, number)
        if self._slots is None:
            self._slots, self.batch, self.runs = slots, batch, runs
        else:
            self._slots = self._slots.joined(slots)
            self.batch, self.runs = self.batch.joined(batch), self.runs.joined(runs)

    def _open(self, example: Tensor) -> Tensor:
        """Which runs of these examples are neither over nor started."""
        return self.state.scores[example].isnan() & (self.numbers > self.started[example, None])

    def _next(self, example: Tensor) -> Tensor:
        """The number of each example's next run."""
        return self._open(example).to(torch.int8).argmax(1)

    def _beside(self, example: Tensor, free: int) -> tuple[Tensor, Tensor]:
        """At most ``free`` further runs of these examples and others with runs under way, in rounds over examples."""
        if self._slots is not None:
            settled = (self.runs.step.cpu() >= SOON) | (self._slots.number > 0)
            example = torch.cat([example, self._slots.example[settled]])
        if self.found is not None:
            example = example[~torch.isin(example, self.found.example)]
        example = torch.tensor(sorted(set(example.tolist())), dtype=torch.int64)
        more: list[tuple[Tensor, Tensor]] = []
        while len(example) and free > 0:
            example = example[self._open(example).any(1)]
            number = self._next(example)
            awaited = self.state.scores[example].isnan() & (self.numbers < self.after[number, None])
            example, number = (column[~awaited.any(1)][:free] for column in (example, number))
            self.started[example] = number
            more.append((example, number))
            free -= len(example)
        if not more:
            return example[:0], example[:0]
        return torch.cat([example for example, _ in more]), torch.cat([number for _, number in more])

    def _start(self, example: Tensor, number: Tensor) -> tuple[Slots, Batch, AttackState]:
        context, state = self.context, self.state
        target_class = torch.full_like(example, -1)
        batch = context.batch(example)
        batch.keys = fold(batch.keys, "scheduler/run", self.label, number.to(context.device))
        keys = batch.keys.cpu()
        if context.examples.targets is None:
            for each in set(number.tolist()):
                those = number == each
                of = example[those]
                target = self.attack.target_class(each, state.ranked[of], state.scores[of], keys[those])
                if target is not None:
                    target_class[those] = target
        batch.target_class = target_class.to(context.device)
        runs = self.attack.init(batch, number.to(context.device))
        margin = torch.full((len(example),), torch.inf, device=context.device)
        best = runs.x.clone() if self.keeps_best else runs.x.new_empty(len(example), 0)
        logits = margin.new_zeros(len(example), context.classes if self.attack.ranks else 0)
        return Slots(example, number, state.tries[example].to(context.device), margin, best, logits), batch, runs

    # --- a step ---

    def _step(self) -> None:
        batch, runs = self.batch, self.runs
        answer = self._query(batch, runs)
        finite = answer.finite
        reached = batch.reached(answer.logits) & finite
        if self.attack.inside:
            margin = torch.where(finite, batch.margin(answer.logits), torch.inf)
            if self.attack.ranks:
                self.slots.logits = torch.where((margin < self.slots.margin)[:, None], answer.logits, self.slots.logits)
            self._keep_best(slice(None), runs.x, margin)
        if self.keeps_best:
            reached = torch.zeros_like(
                reached
            )  # at the boundary it is often a lucky draw: verified at the end of the run
        proposed = (reached | ~finite).nonzero().squeeze(1)
        leaves = torch.zeros(len(batch), dtype=torch.bool)
        if len(proposed) and not self.attack.inside:
            # a rough test: the verifier repeats it in float64
            threat = self.context.threat
            inside = threat.norm(runs.x[proposed] - batch.images[proposed]) <= 1.0001 * threat.eps
            proposed = proposed[inside | ~finite[proposed]]
        if len(proposed):
            leaves[proposed.cpu()] = self._verify(proposed, runs.x[proposed]) | ~finite[proposed].cpu()
        self.attack.step(runs, batch, answer)
        over = (runs.step >= runs.budget).cpu() & ~leaves
        if over.any():
            self._finish(over.nonzero().squeeze(1))
            leaves |= over
        if leaves.any():
            self._leave(leaves)

    def _query(self, batch: Batch, runs: AttackState) -> Answer:
        wants = self.attack.wants(runs) if self.attack.gradient else None
        if wants is None or wants.all():
            return self._query_rows(None, batch, runs, self.attack.gradient)
        n, answers = len(batch), []
        for rows, gradient in ((wants.nonzero().squeeze(1), True), ((~wants).nonzero().squeeze(1), False)):
            if len(rows):
                answers.append((rows, self._query_rows(rows, batch.take(rows), runs.take(rows), gradient)))
        logits = answers[0][1].logits.new_empty(n, answers[0][1].logits.shape[1])
        whole = Answer(logits, logits.new_zeros(n), torch.zeros_like(runs.x))
        for rows, answer in answers:
            whole.logits[rows] = answer.logits
            if len(answer.loss):
                whole.loss[rows], whole.gradient[rows] = answer.loss, answer.gradient
        return whole

    def _query_rows(self, rows: Tensor | None, batch: Batch, runs: AttackState, gradient: bool) -> Answer:
        """Query these rows of the batch (None: all), and book the passes."""
        objective = (lambda logits: self.attack.objective(runs, batch, logits)) if gradient else None
        example = self.slots.example if rows is None else self.slots.example[rows.cpu()]
        with self.context.booked(example):
            answer = self.context.counted_model.query(
                runs.x, batch.keys, objective, draw=runs.step, eot=self.attack.draws
            )
        if gradient:
            self.state.zero_gradients.index_add_(0, example, (~answer.gradient.flatten(1).any(1)).long().cpu())
        return answer

    def _keep_best(self, rows: Tensor | slice, images: Tensor, margin: Tensor) -> None:
        """Keep the smallest margin of each run; for a random model the image, too, to be verified at the end."""
        slots = self.slots
        if self.keeps_best:
            closer = (margin < slots.margin[rows]).nonzero().squeeze(1)
            slots.closest[closer if isinstance(rows, slice) else rows[closer]] = images[closer]
        slots.margin[rows] = torch.minimum(slots.margin[rows], margin)

    def _verify(self, rows: Tensor, images: Tensor) -> Tensor:
        """Verify images; return which of them decide their examples."""
        context, example = self.context, self.slots.example[rows.cpu()]
        batch = self.batch.take(rows)
        batch.keys = context.examples.keys[example].to(context.device)
        tries = self.slots.tries[rows]
        with context.booked(example):
            checked = context.verifier.proposals(images, batch, tries)
        self.slots.tries[rows] = tries
        self.state.record_nearest(example, checked, self.stage, self.slots.number[rows.cpu()])
        if self.attack.inside:
            self._keep_best(rows, checked.images, torch.where(checked.finite, checked.margin, torch.inf))
        decided = checked.broken | ~checked.finite
        if decided.any():
            self._record(rows[decided], checked, decided)
        return decided.cpu()

    def _finish(self, rows: Tensor) -> None:
        """Verify the last image of runs whose budget is spent, and for a random model the best one."""
        at = rows.to(self.context.device)
        decided = self._verify(at, self.runs.x[at])
        if self.keeps_best and not decided.all():
            again = at[~decided.to(at.device)]
            self._verify(again, self.slots.closest[again])

    # --- recording results ---

    def _record(self, rows: Tensor, checked: VerifierResult, decided: Tensor) -> None:
        """Record what runs in these rows found, unless an earlier run of the same example may still find something."""
        here, slots = rows.cpu(), self.slots
        target_class = self.batch.columns()["target_class"]
        found = Found(
            slots.example[here],
            slots.number[here],
            self.runs.step[rows].cpu(),
            target_class[rows].cpu(),
            *(column[decided].cpu() for column in (checked.images, checked.broken, checked.finite, checked.margin)),
        )
        if self.side_by_side:
            found = self._final(found if self.found is None else self.found.joined(found))
        self._record_final(found)

    def _final(self, found: Found) -> Found:
        """Successes that no earlier run of their example can precede any more; the others are kept in ``found``."""
        lowest = torch.full_like(self.started, self.attack.runs)
        lowest.scatter_reduce_(0, found.example, found.number, "amin")
        found = found.take((found.number == lowest[found.example]) & self.state.robust[found.example])
        if self._slots is not None:
            lowest.scatter_reduce_(0, self._slots.example, self._slots.number, "amin")
        first = found.number == lowest[found.example]
        self.found = None if first.all() else found.take(~first)
        return found.take(first)

    def _record_final(self, found: Found) -> None:
        state, example = self.state, found.example
        state.run[example], state.step[example] = found.number, found.step
        state.target_class[example] = found.target_class
        state.record(example, VerifierResult(found.images, found.broken, found.finite, found.margin), self.stage)

    def _leave(self, leaves: Tensor) -> None:
        """Remove runs from the batch, and with a success the later runs of its example."""
        slots, state = self.slots, self.state
        over = leaves
        if self.side_by_side:
            until = torch.full_like(self.started, self.attack.runs)
            if self.found is not None:
                until[self.found.example] = self.found.number
            later = slots.number >= until[slots.example]
            over, leaves = leaves & ~later, leaves | later | ~state.robust[slots.example]
        example = slots.example[over]
        if self.attack.ranks and self.context.examples.targets is None:
            logits, labels = slots.logits.cpu()[over], self.context.examples.labels.cpu()[example]
            state.ranked[example] = ranked_classes(logits, labels)
        self._close(example, slots.number[over], slots.margin.cpu()[over])
        state.tries[example] = slots.tries.cpu()[over]
        stay = (~leaves).nonzero().squeeze(1)
        self._slots = slots.take(stay) if len(stay) else None
        if len(stay):
            self.batch, self.runs = self.batch.take(stay), self.runs.take(stay)
        if self.found is not None:
            self._record_final(self._final(self.found))
        continues = state.robust[example] & self._open(example).any(1)
        if self._slots is not None and self.side_by_side:
            continues &= ~torch.isin(example, self._slots.example)
        self.waiting.extend(dict.fromkeys(example[continues].tolist()))

    def _close(self, example: Tensor, number: Tensor, margin: Tensor) -> None:
        """Record runs that are over, and their smallest margins."""
        state = self.state
        state.scores[example, number] = margin
        state.done.index_add_(0, example, torch.ones_like(example))
        if self.attack.inside:
            robust = state.robust[example]
            state.margin.scatter_reduce_(0, example[robust], margin[robust], "amin")
