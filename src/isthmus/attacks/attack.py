"""What a suite is made of: an attack's name, its options, and how it is run.

An attack is a module with a frozen ``Config`` and one function. Most are iterative and say how many runs advance
together, for the queue to feed (:mod:`isthmus.attacks.engine.scheduler`)::

    search(config, threat: Threat, classes: int) -> Search

Others propose once, for a batch of examples that still stand, each with a key of its own for this attack and
restart (:mod:`isthmus.attacks.engine.single_shot`)::

    perturb(config, oracle: Oracle, batch: Batch, threat: Threat) -> images

All randomness derives from ``batch.keys``, so that no result depends on batch size or order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.iterative import IterativeAttack
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.threats import Threat
from isthmus.core.config import Component

Perturb = Callable[[Any, CountedModel, Batch, Threat], Tensor]
MakeSearch = Callable[[Any, Threat, int], IterativeAttack[Any]]


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
    among: Callable[[EvaluationState, Tensor], Tensor] | None = None

    @property
    def restarts(self) -> int:
        """How often ``perturb`` is called for an example."""
        return int(getattr(self.config, "restarts", 1))

    def runs(self, threat: Threat, classes: int) -> int:
        """Runs per example, each with a score in the ledger."""
        return self.restarts if self.search is None else self.search(self.config, threat, classes).runs
