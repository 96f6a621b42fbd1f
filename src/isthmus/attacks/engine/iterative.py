"""What an iterative attack is to the queue: many runs, one row each, all advanced by one look at the model.

A run starts at an image, looks, moves, looks again. Rows know nothing of each other, each carries its own step, size
and budget, so that runs at different steps share a batch; one that is over leaves its place to the next in the queue.
The queue looks, watches for success, judges and counts; an attack only says where to start and where to go.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.rows import Rows


@dataclass
class AttackState(Rows):
    """Where runs are; attacks add columns of their own.

    Attributes:
        x: the image each run looks at next.
        looks: looks so far.
        budget: looks after which a run is over. Where it then stands is judged once more, forward only.
    """

    x: Float[Tensor, "n c h w"]
    step: Int[Tensor, " n"]
    budget: Int[Tensor, " n"]


R = TypeVar("R", bound=AttackState)


class IterativeAttack(ABC, Generic[R]):
    """An iterative attack with its options, for one threat and model.

    Attributes:
        runs: runs per example, until one succeeds; see :meth:`after` and :mod:`isthmus.attacks.engine.scheduler`.
        eot: draws of a random model to average over at each look.
        gradient: whether a look needs one.
        inside: whether every iterate is inside ball and box, so that the best of them can be proposed at the end.
    """

    runs: int = 1
    eot: int = 1
    gradient: ClassVar[bool] = True
    inside: bool = True

    def target_class(
        self, number: int, ranked: Int[Tensor, "n classes"], scores: Float[Tensor, "n runs"], keys: Int[Tensor, " n"]
    ) -> Int[Tensor, " n"] | None:
        """The class that each example's run of this number is directed at; None, or −1, for no class in particular.

        Args:
            number: of the run, from 0 up.
            ranked: wrong classes by falling logit on the clean image.
            scores: smallest gap (in logits) that the example's runs reached; of the first :meth:`after` they are all
                there, of others perhaps not, and then NaN.
            keys: of these very runs.
        """
        return None

    def after(self, number: int) -> int:
        """How many of an example's first runs must be over before this one begins; the others may go side by side."""
        return 0

    @abstractmethod
    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> R:
        """New runs for examples whose keys belong to this very run.

        Args:
            batch: the examples, with aims.
            number: of each run, among those of its example.
        """

    def objective(self, runs: R, batch: Batch, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """The values whose gradient :meth:`step` wants. Never asked of a search without ``gradient``."""
        raise NotImplementedError

    def wants(self, runs: R) -> Bool[Tensor, " n"] | None:
        """Which runs want a gradient at this look; the others look forward only. None for all of them."""
        return None

    @abstractmethod
    def step(self, runs: R, batch: Batch, answer: Answer) -> None:
        """Move every run to the image it looks at next, given what it saw; counts a look, in place."""


class Directed(IterativeAttack[R]):
    """Runs that ascend a loss towards the wrong classes in turn, the likeliest first.

    Attributes:
        targets: how many of them; 0 for runs directed at none.
        loss: its name, in :data:`isthmus.attacks.losses.LOSSES`.
    """

    targets: int
    loss: str

    def target_class(
        self, number: int, ranked: Int[Tensor, "n classes"], scores: Float[Tensor, "n runs"], keys: Int[Tensor, " n"]
    ) -> Int[Tensor, " n"] | None:
        """The wrong classes in turn, from the likeliest."""
        return ranked[:, number % self.targets] if self.targets else None

    def objective(self, runs: R, batch: Batch, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """The loss, directed at the row's aim where it has one."""
        return batch.ascend(self.loss, logits)


def counters(n: int, budget: int | Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Columns ``looks`` and ``budget`` of runs that begin; the budget is one for all or one for each."""
    step = torch.zeros(n, dtype=torch.int64, device=like.device)
    return step, step + torch.as_tensor(budget, device=like.device)
