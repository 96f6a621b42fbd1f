"""Base classes of attacks, and the stages of a suite.

An attack is a frozen class. Its fields are its options, its methods its behaviour. Most are iterative: they have many
runs, one row each, which one query of the model advances by a step. A :class:`SingleShotAttack` proposes once per
restart. The engine (:mod:`isthmus.attacks.engine.stage`) queries, verifies and counts. All randomness derives from
``batch.keys``, so that no result depends on batch size or order. Without the engine, :meth:`Attack.bind` makes a
function of images and labels, for training loops.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from pydantic import PrivateAttr, model_validator
from torch import Tensor, nn

from isthmus.attacks import bound_attack
from isthmus.attacks.bound_attack import BoundAttack
from isthmus.attacks.engine.batch import Batch, Rows
from isthmus.attacks.engine.counted_model import Answer, CountedModel
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.losses import Loss
from isthmus.attacks.threats import Threat
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError

_OF_THREATS = ("norm", "eps", "epsilon")


class Attack(Component):
    """Base of every attack. Norm and ε are those of the threat, which an attack gets when it runs."""

    @model_validator(mode="before")
    @classmethod
    def _without_threat(cls, given: Any) -> Any:
        names = [key for key in _OF_THREATS if key in given and key not in cls.model_fields]
        if names:
            raise ValueError(
                f"{' and '.join(names)} {'are' if len(names) > 1 else 'is'} part of the threat, not of an attack: give "
                "threat=isthmus.Linf(8 / 255), or 'linf:8/255', to the call that runs the attack"
            )
        return given

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

    def bind(
        self,
        model: nn.Module,
        threat: Threat | str | float,
        *,
        loss: Loss | None = None,
        eval_mode: bool = True,
        seed: int = 0,
    ) -> BoundAttack:
        """The attack on one model, as a function: ``adversarial = attack(images, labels)``.

        Without verification, counting or resuming; see :class:`isthmus.attacks.bound_attack.BoundAttack`.

        Args:
            model: from images in [0, 1] to logits.
            threat: such as ``Linf(8 / 255)`` or ``"l2:0.5"``; a number is ε in ℓ∞. With ε = 0 images are unchanged.
            loss: what to ascend instead of the attack's own loss: from logits n×K and what is passed as labels to n
                values. For attacks with the option ``loss``, a gradient and a single run.
            eval_mode: attack the model in eval mode, as torchattacks does; False leaves every module's mode as it is.
            seed: of random starts, which differ from call to call.

        Raises:
            ModelError: the model is no module.
            ConfigError: the attack does not support the norm, cannot ascend ``loss``, or consists of several stages.
        """
        return BoundAttack(self, model, threat, loss=loss, eval_mode=eval_mode, seed=seed)

    def attempt(
        self, counted_model: CountedModel, batch: Batch, threat: Threat, loss: Loss | None = None
    ) -> Float[Tensor, "n c h w"]:
        """One image for each example, inside ball and box and not verified; what :meth:`bind` calls.

        Args:
            loss: see :meth:`bind`.

        Raises:
            ConfigError: the attack cannot ascend ``loss``.
        """
        raise NotImplementedError(f"{type(self).__name__} consists of other attacks")


class SingleShotAttack(Attack, ABC):
    """An attack that proposes once for a batch of examples, and again for each of its ``restarts``."""

    def attempt(
        self, counted_model: CountedModel, batch: Batch, threat: Threat, loss: Loss | None = None
    ) -> Float[Tensor, "n c h w"]:
        """See :meth:`Attack.attempt`."""

        def once(batch: Batch, rows: Tensor, number: int) -> Tensor:
            return threat.project(self.perturb(counted_model, batch, threat), batch.images)

        return bound_attack.best_of(self.runs_in(threat, 0), once, counted_model, batch)

    @abstractmethod
    def perturb(self, counted_model: CountedModel, batch: Batch, threat: Threat) -> Float[Tensor, "n c h w"]:
        """Propose one image for each example.

        Args:
            batch: robust examples, with keys for this attack and restart.
        """


@dataclass(frozen=True)
class Stage:
    """One attack of a suite.

    Attributes:
        label: its name in results, unique in the suite; its random numbers derive from it.
        among: selects the examples that are attacked, from the evaluation's state (with the runs and scores of the
            stage before) and their keys; None for all robust ones. It may write ``ranked`` and ``marks`` for later
            stages.
        grows: whether ``among`` is asked again after each pass over the examples, until it selects none.
        share: about which fraction of the robust examples that is, for estimates of the cost.
    """

    label: str
    attack: Attack
    among: Callable[[EvaluationState, Tensor], Tensor] | None = None
    grows: bool = False
    share: float = 1.0

    def renamed(self, prefix: str = "", suffix: str = "") -> Stage:
        """The stage with a longer label."""
        return replace(self, label=f"{prefix}{self.label}{suffix}")


@dataclass
class AttackState(Rows):
    """State of runs; attacks add columns.

    Attributes:
        x: the image that each run queries next.
        step: steps so far.
        budget: steps after which a run is over. Its last ``x`` is verified once more, forward only.
    """

    x: Float[Tensor, "n c h w"]
    step: Int[Tensor, " n"]
    budget: Int[Tensor, " n"]


S = TypeVar("S", bound=AttackState)


class IterativeAttack(Attack, ABC, Generic[S]):
    """An attack with per-row state. It is specialised to a threat and a number of classes before it runs.

    Each row has its own step, size and budget, so that runs at different steps share a batch.

    Attributes:
        norms: names of the norms that it supports.
        gradient: whether a step needs a gradient.
        inside: whether every iterate is inside ball and box, so that the best of them can be proposed at the end.
        ranks: whether the wrong classes of an example are ranked anew, by the logits where its one run had the smallest
            margin.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    gradient: ClassVar[bool] = True
    ranks: ClassVar[bool] = False

    _threat: Threat | None = PrivateAttr(None)
    _classes: int = PrivateAttr(0)

    def for_threat(self, threat: Threat, classes: int) -> IterativeAttack[Any]:
        """The attack for one threat and a model with this many classes.

        Raises:
            ConfigError: the attack does not support the threat's norm.
        """
        return self._copy_for(threat, classes)

    def _copy_for(self, threat: Threat, classes: int) -> Self:
        if threat.name not in self.norms:
            raise ConfigError(
                f"The attack {self.name!r} works in {' and '.join(self.norms)}, not in {threat.name}. Choose another "
                "attack or norm."
            )
        copied = self.model_copy()
        copied._threat, copied._classes = threat, classes
        return copied

    @property
    def threat(self) -> Threat:
        """The threat that the attack is specialised to."""
        assert self._threat is not None, "call for_threat() first"
        return self._threat

    @property
    def inside(self) -> bool:
        """See the class."""
        return True

    @property
    def n_targets(self) -> int:
        """Wrong classes that runs are directed at in turn, the likeliest first; 0 for undirected runs."""
        return 0

    @property
    def directed(self) -> bool:
        """Whether :meth:`target_class` may direct runs at classes; it then needs the logits of the clean images."""
        return type(self).target_class is not IterativeAttack.target_class or getattr(self, "targets", 0) != 0

    @property
    def runs(self) -> int:
        """Runs per example, until one succeeds: every target class once, then all of them again from new starts."""
        return int(getattr(self, "restarts", 1)) * max(self.n_targets, 1)

    @property
    def draws(self) -> int:
        """Draws of a random model to average over at each step: the option ``eot``, if the attack has one."""
        return int(getattr(self, "eot", 1))

    def runs_in(self, threat: Threat, classes: int) -> int:
        """Runs per example, each with a score in the evaluation's state."""
        return self.for_threat(threat, classes).runs

    def target_class(
        self, number: int, ranked: Int[Tensor, "n classes"], scores: Float[Tensor, "n runs"], keys: Int[Tensor, " n"]
    ) -> Int[Tensor, " n"] | None:
        """The class that each example's run of this number is directed at; None, or −1, for no particular class.

        Args:
            number: of the run, from 0 up.
            ranked: wrong classes, the likeliest first: by the clean logits, or as an earlier attack ranked them.
            scores: smallest margin that each of the example's runs reached. The first :meth:`after` are complete;
                others may be NaN.
            keys: of these runs.
        """
        return ranked[:, number % self.n_targets] if self.n_targets else None

    def after(self, number: int) -> int:
        """How many of an example's first runs must be over before this one starts; the others may run side by side."""
        return 0

    @abstractmethod
    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> S:
        """Start new runs.

        Args:
            batch: the examples, with target classes and with keys of these runs.
            number: of each run, among those of its example.
        """

    def objective(self, state: S, batch: Batch, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """The values whose gradient :meth:`step` needs: the option ``loss``, or else the cross-entropy.

        They are directed at the row's target class if it has one. Not called for attacks without ``gradient``.
        """
        return batch.ascend(getattr(self, "loss", "ce"), logits)

    def wants(self, state: S) -> Bool[Tensor, " n"] | None:
        """Which runs need a gradient at this step; the others query forward only. None for all of them."""
        return None

    @abstractmethod
    def step(self, state: S, batch: Batch, answer: Answer) -> None:
        """Move every run to the image it queries next, given the model's answer, and count the step; in place."""

    def end(self, state: S) -> Float[Tensor, "n c h w"]:
        """The images that runs end with outside an evaluation: the last ones, or the best if the attack keeps them."""
        return state.x

    def attempt(
        self, counted_model: CountedModel, batch: Batch, threat: Threat, loss: Loss | None = None
    ) -> Float[Tensor, "n c h w"]:
        """See :meth:`Attack.attempt`."""
        return bound_attack.attempt(self, counted_model, batch, threat, loss)


def counters(n: int, budget: int | Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Columns ``step`` and ``budget`` of new runs; the budget is one for all or one for each."""
    step = torch.zeros(n, dtype=torch.int64, device=like.device)
    return step, step + torch.as_tensor(budget, device=like.device)
