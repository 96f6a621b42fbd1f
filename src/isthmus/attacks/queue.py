"""The queue: runs of an iterative attack feed a batch of constant shape, and nothing is spent on what is decided.

Each example's runs (restarts, aims) follow one another; the runs of all examples stand in one line. A run leaves its
place in the batch the moment its example is broken or its budget is spent, and the next in line takes it. So the
course of an example, and what it costs, depends on its own key alone: not on the batch size, on the order, or on who
else is there. Who finishes a run goes to the end of the line, so that all examples progress alike and the batch stays
full until the last round.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isthmus.attacks import flags
from isthmus.attacks.judging import Judge
from isthmus.attacks.ledger import Ledger
from isthmus.attacks.oracle import Answer, Batch, Oracle
from isthmus.attacks.rows import Rows
from isthmus.attacks.search import Runs, Search
from isthmus.randomness import fold


@dataclass
class Places(Rows):
    """Who is in the batch: the example's row in the ledger, its run's number, and the run's best so far."""

    example: Tensor
    number: Tensor
    tries: Tensor
    gap: Tensor
    closest: Tensor


class Queue:
    """Runs one search on examples until each is decided or has spent its runs.

    Args:
        search: the attack.
        attack: number that keys of its runs derive from.
        stage: its position in the ledger's count.
        oracle, judge: the model.
        examples: all of them, on the model's device or the CPU.
        ledger: entered as it goes.
        size: rows in the batch.
    """

    def __init__(
        self,
        search: Search[Any],
        attack: int,
        stage: int,
        oracle: Oracle,
        judge: Judge,
        examples: Batch,
        ledger: Ledger,
        size: int,
        device: torch.device,
    ) -> None:
        self.search, self.attack, self.stage = search, attack, stage
        self.oracle, self.judge, self.size, self.device = oracle, judge, size, device
        self.examples, self.ledger = examples, ledger
        self.keeps_best = oracle.random and search.inside
        self.waiting: deque[int] = deque()
        self._places: Places | None = None
        self.batch: Batch
        self.runs: Runs

    @property
    def places(self) -> Places:
        """Who is in the batch, while there is one."""
        assert self._places is not None
        return self._places

    def run(self, rows: Tensor) -> Iterator[None]:
        """Work through these examples' runs; yields after every look, when the ledger is in order."""
        left = rows[self.ledger.standing[rows] & (self.ledger.done[rows] < self.search.runs)]
        # those that are behind go first, so that an evaluation taken up again goes on as it would have
        self.waiting.extend(left[self.ledger.done[left].argsort(stable=True)].tolist())
        if len(left) > self.size:  # batches of one size, rather than full ones and a small last one
            self.size = math.ceil(len(left) / math.ceil(len(left) / self.size))
        while self.waiting or self._places is not None:
            self._fill()
            self._step()
            yield

    def _fill(self) -> None:
        taken = 0 if self._places is None else len(self._places)
        free = min(self.size - taken, len(self.waiting))
        if free <= 0:
            return
        example = torch.tensor([self.waiting.popleft() for _ in range(free)])
        places, batch, runs = self._begin(example)
        if self._places is None:
            self._places, self.batch, self.runs = places, batch, runs
        else:
            self._places = self._places.joined(places)
            self.batch, self.runs = self.batch.joined(batch), self.runs.joined(runs)

    def _begin(self, example: Tensor) -> tuple[Places, Batch, Runs]:
        number = self.ledger.done[example]
        aims = torch.full_like(example, -1)
        batch = self.examples.take(example).to(self.device)
        batch.keys = fold(batch.keys, self.attack, number.to(self.device))
        keys = batch.keys.cpu()
        if self.examples.targets is None:
            for each in sorted(set(number.tolist())):
                those = number == each
                ledger = self.ledger
                of = example[those]
                aimed = self.search.aims(each, ledger.ranked[of], ledger.scores[of], keys[those])
                if aimed is not None:
                    aims[those] = aimed
        batch.aims = aims.to(self.device)
        runs = self.search.begin(batch, number.to(self.device))
        gap = torch.full((len(example),), torch.inf, device=self.device)
        best = runs.x.clone() if self.keeps_best else runs.x.new_empty(len(example), 0)
        return Places(example, number, self.ledger.tries[example].to(self.device), gap, best), batch, runs

    def _step(self) -> None:
        batch, runs = self.batch, self.runs
        answer = self._look(batch, runs)
        finite = answer.finite
        reached = batch.reached(answer.logits) & finite
        if self.search.inside:
            self._remember(slice(None), runs.x, torch.where(finite, batch.gap(answer.logits), torch.inf))
        if self.keeps_best:
            reached = torch.zeros_like(reached)  # at the boundary it is often a lucky draw: judged at the run's end
        asked = (reached | ~finite).nonzero().squeeze(1)
        leaves = torch.zeros(len(batch), dtype=torch.bool)
        if len(asked) and not self.search.inside:
            # roughly: the judge looks closely, and in float64
            threat = self.judge.threat
            inside = threat.norm(runs.x[asked] - batch.images[asked]) <= 1.0001 * threat.eps
            asked = asked[inside | ~finite[asked]]
        if len(asked):
            leaves[asked.cpu()] = self._decide(asked, runs.x[asked], ended=(~finite[asked]).cpu())
        self.search.advance(runs, batch, answer)
        over = (runs.looks >= runs.budget).cpu() & ~leaves
        if over.any():
            leaves |= self._finish(over.nonzero().squeeze(1))
        if leaves.any():
            self._leave(leaves)

    def _look(self, batch: Batch, runs: Runs) -> Answer:
        wants = self.search.wants(runs) if self.search.gradient else None
        if wants is None or wants.all():
            return self._look_at(None, batch, runs, self.search.gradient)
        n, answers = len(batch), []
        for rows, gradient in ((wants.nonzero().squeeze(1), True), ((~wants).nonzero().squeeze(1), False)):
            if len(rows):
                answers.append((rows, self._look_at(rows, batch.take(rows), runs.take(rows), gradient)))
        logits = answers[0][1].logits.new_empty(n, answers[0][1].logits.shape[1])
        whole = Answer(logits, logits.new_zeros(n), torch.zeros_like(runs.x))
        for rows, answer in answers:
            whole.logits[rows] = answer.logits
            if len(answer.loss):
                whole.loss[rows], whole.gradient[rows] = answer.loss, answer.gradient
        return whole

    def _look_at(self, rows: Tensor | None, batch: Batch, runs: Runs, gradient: bool) -> Answer:
        """Look for these rows of the batch (None: all); books the passes."""
        before = self.oracle.forward_passes, self.oracle.backward_passes
        objective = (lambda logits: self.search.objective(runs, batch, logits)) if gradient else None
        answer = self.oracle.look(runs.x, batch.keys, objective, draw=runs.looks, eot=self.search.eot)
        example = self.places.example if rows is None else self.places.example[rows.cpu()]
        self._count(example, before)
        if gradient:
            self.ledger.blind[example] += flags.all_zero(answer.gradient).cpu()
        return answer

    def _count(self, example: Tensor, before: tuple[int, int]) -> None:
        """Book what the model was asked on the examples it was asked about, in equal shares."""
        n = len(example)
        self.ledger.forwards[example] += (self.oracle.forward_passes - before[0]) // n
        self.ledger.backwards[example] += (self.oracle.backward_passes - before[1]) // n

    def _remember(self, rows: Tensor | slice, images: Tensor, gap: Tensor) -> None:
        """Keep the smallest gap of each run; of a random model's runs the image, too, to be judged at the end."""
        places = self.places
        if self.keeps_best:
            closer = (gap < places.gap[rows]).nonzero().squeeze(1)
            places.closest[closer if isinstance(rows, slice) else rows[closer]] = images[closer]
        places.gap[rows] = torch.minimum(places.gap[rows], gap)

    def _decide(self, rows: Tensor, images: Tensor, ended: Tensor) -> Tensor:
        """Have images judged; says which rows leave: those decided, and those whose run has ``ended`` anyway."""
        example = self.places.example[rows.cpu()]
        batch = self.batch.take(rows)
        batch.keys = self.examples.keys[example].to(self.device)
        tries = self.places.tries[rows]
        before = self.oracle.forward_passes, self.oracle.backward_passes
        verdict = self.judge.proposals(images, batch, tries)
        self.places.tries[rows] = tries
        self._count(example, before)
        if self.search.inside:
            self._remember(rows, verdict.images, torch.where(verdict.finite, verdict.gap, torch.inf))
        decided = self.ledger.note(example, verdict, self.stage)
        won = example[decided]
        self.ledger.run[won] = self.places.number[rows.cpu()][decided]
        self.ledger.look[won] = self.runs.looks[rows].cpu()[decided]
        self.ledger.aim[won] = self.batch.columns()["aims"][rows].cpu()[decided]
        return decided | ended

    def _finish(self, rows: Tensor) -> Tensor:
        """Runs whose budget is spent: judge where they stand, and a random model's best; the next is put in line."""
        gone = torch.zeros(len(self.batch), dtype=torch.bool)
        at = rows.to(self.device)
        over = torch.ones(len(rows), dtype=torch.bool)
        self._decide(at, self.runs.x[at], ended=over)
        left = self.ledger.standing[self.places.example[rows]]
        if self.keeps_best and left.any():
            again = at[left.to(self.device)]
            self._decide(again, self.places.closest[again], ended=over[left])
        gone[rows] = True
        return gone

    def _leave(self, leaves: Tensor) -> None:
        places = self.places
        example, number = places.example[leaves], places.number[leaves]
        gap = places.gap.cpu()[leaves]
        self.ledger.tries[example] = places.tries.cpu()[leaves]
        self.ledger.scores[example, number] = gap
        self.ledger.done[example] = number + 1
        stands = self.ledger.standing[example]
        self.waiting.extend(example[stands & (number + 1 < self.search.runs)].tolist())
        if self.search.inside:
            nearer = stands & (gap < self.ledger.gap[example])
            self.ledger.gap[example[nearer]] = gap[nearer]
        if leaves.all():
            self._places = None
            return
        stay = (~leaves).nonzero().squeeze(1)
        self._places = places.take(stay)
        self.batch, self.runs = self.batch.take(stay), self.runs.take(stay)
