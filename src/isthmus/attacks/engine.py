"""The engine under every attack: it hands out survivors, judges proposals itself, and keeps the proof.

An attack only proposes. Whatever it proposes is clipped into ball and box where it is not inside already,
judged again in float32 by a fresh forward pass, and counted as broken only if it is inside and misclassified.
So an attack can be weak or wrong, but it cannot lie.

An attack is a module with a frozen ``Config`` and one function. Most are iterative and say how many runs advance
together, for the queue to feed (:mod:`isthmus.attacks.queue`)::

    search(config, threat: Threat, classes: int) -> Search

Others propose once, for a batch of examples that still stand, each with a key of its own for this attack and
restart::

    perturb(config, oracle: Oracle, batch: Batch, threat: Threat) -> images

A ``restarts`` field in its config makes the engine call it that often, each time with new keys and only the
examples left. All randomness derives from ``batch.keys``, so that no result depends on batch size or order.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from isthmus import files
from isthmus.attacks import scouting, workers
from isthmus.attacks.inputs import check_classes, check_proposals
from isthmus.attacks.judging import Judge
from isthmus.attacks.ledger import Ledger
from isthmus.attacks.oracle import Batch, Oracle, device_of, undisturbed
from isthmus.attacks.queue import Queue
from isthmus.attacks.result import CLEAN, RobustResult
from isthmus.attacks.search import Search
from isthmus.attacks.threats import Threat
from isthmus.config import Component
from isthmus.errors import FileError, ModelError

SAVE_EVERY = 20.0
"""Seconds between two writes of an evaluation that keeps a file, at least."""

_WRITING = 20  # writing takes at most one part in so many of the time

Perturb = Callable[[Any, Oracle, Batch, Threat], Tensor]
MakeSearch = Callable[[Any, Threat, int], Search[Any]]


class Snapshot(NamedTuple):
    """How far an evaluation is, for whoever watches.

    Attributes:
        done, total: work so far and in all, in units of examples.
        attack: label of the attack that runs.
        standing: examples that stand so far; an upper bound on those that will.
        n: examples in all.
    """

    done: float
    total: int
    attack: str
    standing: int
    n: int


Progress = Callable[[Snapshot], None]


@dataclass(frozen=True)
class Attack:
    """An attack ready to run: a label that is unique in its suite, its options, and its function.

    ``among`` picks the examples it is tried on from the ledger (with the runs and scores of the attack before) and
    keys; None for all that stand. It may leave notes for later rules in the ledger.
    """

    label: str
    config: Component
    perturb: Perturb | None = None
    search: MakeSearch | None = None
    among: Callable[[Ledger, Tensor], Tensor] | None = None

    @property
    def restarts(self) -> int:
        """How often the engine calls ``perturb``."""
        return int(getattr(self.config, "restarts", 1))

    @property
    def number(self) -> int:
        """Identifies the attack in keys: a hash of its label, whatever else is in the suite."""
        return int(files.sha256(self.label.encode())[:15], 16)


@dataclass(frozen=True)
class Means:
    """With what an evaluation works; nothing of it changes the result but for the model's own rounding.

    Attributes:
        batch_size: examples at a time; None to find it from memory.
        jobs: processes on this machine.
        bf16: gradients in bfloat16; success is judged in float32 all the same.
        save_to: file that keeps the evaluation as it goes; one of the same evaluation is taken up.
    """

    batch_size: int | None = None
    jobs: int = 1
    bf16: bool = False
    save_to: Path | None = None


def evaluate(
    model: nn.Module,
    examples: Batch,
    threat: Threat,
    attacks: Sequence[Attack],
    *,
    seed: int = 0,
    means: Means = Means(),
    progress: Progress | None = None,
    known: RobustResult | None = None,
) -> RobustResult:
    """Run attacks one after another, each on what the ones before it left standing.

    :func:`isthmus.attacks.robust_accuracy` is the same with checked, friendlier arguments.

    Args:
        model: images to logits; judged in eval mode, and left exactly as it was.
        examples: images float32 in [0, 1], with labels and keys; see :func:`isthmus.attacks.inputs.examples`.
        seed: of the global generators, for models that draw noise of their own; examples bring their keys.
        progress: called as it goes.
        known: a result for the same model, examples and seed at a smaller ε or with fewer attacks. What it
            decided stays decided, without another pass.

    Raises:
        ModelError: the model fails, returns something other than N×K logits, has no gradient where an attack
            needs one, or gives no finite logits for any image.
        DataError: a label or target is not one of the model's classes.
        ConfigError: an attack returned something other than one image per example.
        FileError: the file to save to holds another evaluation.
        Interrupted: Ctrl-C; carries the result so far.
    """
    device = device_of(model, examples.images)
    with undisturbed(model, device, seed):
        evaluation = Evaluation(model, examples, threat, attacks, seed, means, progress)
        try:
            evaluation.begin(known)
            evaluation.run()
        except KeyboardInterrupt:
            if evaluation.ledger is None or not evaluation.looked:
                raise
            evaluation.ledger.settle()
            evaluation.save()
            raise Interrupted(evaluation.result(complete=False)) from None
        finally:
            workers.close(evaluation)
        return evaluation.result()


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during an evaluation. ``result`` is what was known by then: a valid upper bound on robust accuracy."""

    def __init__(self, result: RobustResult) -> None:
        super().__init__("interrupted; .result holds what was found so far")
        self.result = result


class Evaluation:
    """An evaluation under way: the ledger, and what fills it."""

    def __init__(
        self,
        model: nn.Module,
        examples: Batch,
        threat: Threat,
        attacks: Sequence[Attack],
        seed: int,
        means: Means,
        progress: Progress | None,
    ) -> None:
        self.model, self.examples, self.threat, self.attacks = model, examples, threat, list(attacks)
        self.seed, self.means, self.progress = seed, means, progress
        self.device = device_of(model, examples.images)
        self.oracle = scouting.oracle(model, means.bf16, self.examples.images[: scouting.PROBE].to(self.device))
        self.judge = Judge(self.oracle, threat)
        self.labels = [CLEAN, *(attack.label for attack in attacks)]
        self.ledger = Ledger.new(examples.images)
        self.looked = False
        self.at = 0  # attacks that are over
        self.members: Tensor | None = None  # rows that the present one is tried on, once chosen
        self.size = means.batch_size or 0
        self.spent = dict.fromkeys(self.labels, 0)  # example-passes of each stage
        self.pool: workers.Crew | None = None
        self._saved, self._pause = time.monotonic(), SAVE_EVERY

    # --- beginning, saving, taking up ---

    def begin(self, known: RobustResult | None) -> None:
        """Take up a saved evaluation or what is known, or look at the clean images."""
        path = self.means.save_to
        if path is not None and path.exists():
            self._take_up(path)
        elif known is not None:
            self.labels = [*known.attacks, *(a.label for a in self.attacks if a.label not in known.attacks)]
            self.ledger = known.ledger.take(torch.arange(len(known)))
            for spent in (self.ledger.forwards, self.ledger.backwards, self.ledger.blind):
                spent.zero_()  # at the ε before
            self.spent = dict.fromkeys(self.labels, 0)
            self.looked = True
        self.oracle.random = self.oracle.takes_keys or scouting.is_random(self.oracle, self.examples, self.device)
        if path is not None and path.exists():
            self._check_what_is_claimed(path)
        if not self.looked:
            self._look_at_clean_images()
            self._book(CLEAN)
            self.save()
        self.oracle.classes = self.ledger.ranked.shape[1] + 1
        fits = scouting.batch_size(self.oracle, self.examples, self.device)
        self.size = self.means.batch_size or fits

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """What makes this evaluation another than one that a file may hold."""
        return {
            "threat": str(self.threat),
            "attacks": [[a.label, a.config.model_dump(mode="json")] for a in self.attacks],
            "seed": self.seed,
            "examples": scouting.fingerprint(self.examples.columns().values()),
            "model": scouting.fingerprint(self.model.state_dict().values()),
        }

    def save(self) -> None:
        """Write the evaluation to its file, where it has one."""
        if self.means.save_to is None:
            return
        now = {
            "facts": self._facts,
            "labels": self.labels,
            "at": self.at,
            "members": None if self.members is None else self.members.tolist(),
            "passes": [self.oracle.forward_passes, self.oracle.backward_passes],
            "spent": self.spent,
        }
        began = time.monotonic()
        self.ledger.save(self.means.save_to, json.dumps(now))
        self._saved = time.monotonic()
        self._pause = max(SAVE_EVERY, _WRITING * (self._saved - began))

    def _take_up(self, path: Path) -> None:
        ledger, text = Ledger.load(path)
        now = json.loads(text)
        other = [name for name, fact in json.loads(json.dumps(self._facts)).items() if now["facts"].get(name) != fact]
        if other:
            raise FileError(
                f"{path} holds an evaluation with other {', '.join(other)}; delete it to begin anew, or choose "
                "another path."
            )
        self.ledger, self.labels, self.at, self.looked = ledger, now["labels"], now["at"], True
        self.members = None if now["members"] is None else torch.tensor(now["members"], dtype=torch.int64)
        self.oracle.forward_passes, self.oracle.backward_passes = now["passes"]
        self.spent = now["spent"]

    def _check_what_is_claimed(self, path: Path) -> None:
        """Witnesses in the file must hold: equal weights do not make an equal model."""
        self.ledger.settle()
        rows = (self.ledger.broken & (self.ledger.stage > 0)).nonzero().squeeze(1)
        for part in torch.split(rows, scouting.BATCH_SIZE) if len(rows) and not self.oracle.random else ():
            batch = self.examples.take(part).to(self.device)
            verdict = self.judge.proposals(self.ledger.witnesses[part].to(self.device), batch, self.ledger.tries[part])
            if not verdict.broken.all():
                raise FileError(
                    f"{path} holds an evaluation of a model that answers otherwise, though its weights are these; "
                    "delete it to begin anew, or choose another path."
                )

    # --- work ---

    def _look_at_clean_images(self) -> None:
        """Judge the images themselves: errors are broken by "clean", and NaN or infinite logits set aside."""
        ledger, found = self.ledger, []
        for rows in torch.split(torch.arange(len(self.examples)), self.size or scouting.BATCH_SIZE):
            batch = self.examples.take(rows).to(self.device)
            before = self.oracle.forward_passes
            logits = self.judge.clean(batch)
            ledger.forwards[rows] += (self.oracle.forward_passes - before) // len(rows)
            check_classes(self.examples, logits.shape[1])
            finite, predicted = logits.isfinite().all(1), logits.argmax(1)
            ledger.correct[rows] = (finite & (predicted == batch.labels)).cpu()
            broken = (finite & self._wrong_at_once(rows, batch, logits)).cpu()
            ledger.broken[rows], ledger.gap[rows] = broken, batch.gap(logits).float().cpu()
            ledger.stage[rows[broken | ~finite.cpu()]] = 0
            found.append(logits.scatter(1, batch.labels[:, None], -torch.inf).argsort(1, descending=True)[:, :-1].cpu())
        ledger.ranked = torch.cat(found)
        ledger.witnesses[ledger.broken] = self.examples.images.cpu()[ledger.broken]
        if not (ledger.broken | ledger.standing).any():
            raise ModelError(
                "The model's logits are NaN or infinite on every clean image: training diverged, or the "
                "weights are of another model."
            )
        self.looked = True

    def _wrong_at_once(self, rows: Tensor, batch: Batch, logits: Tensor) -> Tensor:
        """Whether clean images succeed as they are; for a random model with the confidence of any other proposal."""
        if not self.oracle.random:
            return batch.reached(logits)
        tries = self.ledger.tries[rows].to(self.device)
        broken, _ = self.judge.confirm(batch.images, batch, tries)
        self.ledger.tries[rows] = tries.cpu()
        return broken

    def run(self) -> None:
        """Run what is left of the attacks."""
        while self.at < len(self.attacks):
            attack = self.attacks[self.at]
            if self.members is None:
                self.members = self._members(attack)
                self.ledger.open_stage(self.runs_of(attack))
            for _ in self._work(attack):
                self._book(attack.label)
                self._tell(attack)
                if time.monotonic() - self._saved > self._pause:
                    self.save()
            self.at, self.members = self.at + 1, None
            self.save()
            self._tell(attack)

    def _book(self, label: str) -> None:
        """Put the passes that are on no stage's account yet on this one's."""
        passes = self.oracle.forward_passes + self.oracle.backward_passes
        self.spent[label] += passes - sum(self.spent.values())

    def _work(self, attack: Attack) -> Iterator[None]:
        assert self.members is not None
        if self.means.jobs > 1 and len(self.members) > 1:
            return workers.run(self, attack, self.members)
        return self.work_on(attack, self.members)

    def work_on(self, attack: Attack, rows: Tensor) -> Iterator[None]:
        """One attack on these examples, here; yields whenever the ledger is in order."""
        stage = self.labels.index(attack.label)
        if attack.search is None:
            return self._perturb(attack, rows, stage)
        search = self.search_of(attack)
        queue = Queue(
            search, attack.number, stage, self.oracle, self.judge, self.examples, self.ledger, self.size, self.device
        )
        return queue.run(rows)

    def search_of(self, attack: Attack) -> Search[Any]:
        """An iterative attack made for this threat and model."""
        assert attack.search is not None
        return attack.search(attack.config, self.threat, self.ledger.ranked.shape[1] + 1)

    def runs_of(self, attack: Attack) -> int:
        """Runs per example."""
        return attack.restarts if attack.search is None else self.search_of(attack).runs

    def _members(self, attack: Attack) -> Tensor:
        chosen = self.ledger.standing
        if attack.among is not None:
            chosen = chosen & attack.among(self.ledger, self.examples.keys.cpu())
        return chosen.nonzero().squeeze(1)

    def _perturb(self, attack: Attack, rows: Tensor, stage: int) -> Iterator[None]:
        """An attack that proposes once for each restart."""
        assert attack.perturb is not None
        ledger = self.ledger
        for restart in range(attack.restarts):
            left = rows[ledger.standing[rows] & (ledger.done[rows] <= restart)]
            for part in torch.split(left, self.size) if len(left) else ():
                self._propose(attack, part, stage, restart)
                yield

    def _propose(self, attack: Attack, rows: Tensor, stage: int, restart: int) -> None:
        assert attack.perturb is not None
        ledger, before = self.ledger, (self.oracle.forward_passes, self.oracle.backward_passes)
        batch = self.examples.take(rows).to(self.device)
        own = batch.folded(attack.number, restart)
        proposals = check_proposals(
            attack.perturb(attack.config, self.oracle, own, self.threat), batch.images, attack.label
        )
        tries = ledger.tries[rows].to(self.device)
        verdict = self.judge.proposals(proposals, batch, tries)
        ledger.tries[rows] = tries.cpu()
        ledger.forwards[rows] += (self.oracle.forward_passes - before[0]) // len(rows)
        ledger.backwards[rows] += (self.oracle.backward_passes - before[1]) // len(rows)
        gap = torch.where(verdict.finite, verdict.gap, torch.inf).float().cpu()
        nearer = gap < ledger.gap[rows]
        ledger.gap[rows[nearer]] = gap[nearer]
        won = rows[ledger.note(rows, verdict, stage)]
        ledger.run[won] = restart
        ledger.done[rows], ledger.scores[rows, restart] = restart + 1, gap

    # --- what came of it ---

    def _tell(self, attack: Attack) -> None:
        if self.progress is None:
            return
        n, share = len(self.examples), 1.0
        if self.members is not None and len(self.members):
            runs = max(self.ledger.scores.shape[1], 1)
            over = torch.where(self.ledger.standing[self.members], self.ledger.done[self.members], runs)
            share = float(over.sum()) / (runs * len(self.members))
        done = (self.at + (share if self.members is not None else 0)) * n
        self.progress(Snapshot(done, len(self.attacks) * n, attack.label, int(self.ledger.standing.sum()), n))

    def _spent(self) -> tuple[int, ...]:
        """Example-passes of each attack; whatever none of them asked for went to the clean look."""
        total = self.oracle.forward_passes + self.oracle.backward_passes
        others = [passes for label, passes in self.spent.items() if label != CLEAN]
        return total - sum(others), *others

    def result(self, complete: bool = True) -> RobustResult:
        """What is known now."""
        return RobustResult(
            threat=self.threat,
            attacks=tuple(self.labels),
            examples=self.examples.to(torch.device("cpu")),
            ledger=self.ledger,
            forward_passes=self.oracle.forward_passes,
            backward_passes=self.oracle.backward_passes,
            random=self.oracle.random,
            complete=complete,
            spent=self._spent(),
            seed=self.seed,
        )
