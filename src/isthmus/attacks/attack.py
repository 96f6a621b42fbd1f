"""Base classes of attacks, and the stages of a suite.

An attack is a frozen class. Its fields are its options, its methods its behaviour. Most attacks are iterative
(:class:`isthmus.attacks.engine.iterative.IterativeAttack`); a :class:`SingleShotAttack` proposes once per restart.
All randomness derives from ``batch.keys``, so that no result depends on batch size or order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.threats import Threat
from isthmus.core.config import Component


class Attack(Component):
    """Base of every attack."""

    @property
    def label(self) -> str:
        """Name of the attack in results."""
        return self.name

    def stages(self) -> Sequence[Stage]:
        """The attack as stages of a suite: itself, unless it consists of several."""
        return (Stage(self.label, self),)

    def runs_in(self, threat: Threat, classes: int) -> int:
        """Runs per example, each with a score in the evaluation's state."""
        return int(getattr(self, "restarts", 1))


class SingleShotAttack(Attack, ABC):
    """An attack that proposes once for a batch of examples, and again for each of its ``restarts``."""

    @abstractmethod
    def perturb(self, counted_model: CountedModel, batch: Batch, threat: Threat) -> Float[Tensor, "n c h w"]:
        """Propose one image for each example.

        Args:
            batch: robust examples, with keys for this attack and restart.
        """


@dataclass(frozen=True)
class Stage:
    """One attack of a suite, with a label that is unique there.

    ``among`` selects the examples that are attacked, from the evaluation's state (with the runs and scores of the stage
    before) and their keys; None for all robust ones. It may write ``ranked`` and ``marks`` for later stages.
    """

    label: str
    attack: Attack
    among: Callable[[EvaluationState, Tensor], Tensor] | None = None
