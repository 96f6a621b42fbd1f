"""PGD: projected gradient ascent from a random start (Madry et al. 2018, arXiv:1706.06083)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from isthmus.attacks.attack import AttackState, IterativeAttack, counters
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.core.randomness import fold, uniform

Size = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PGD(IterativeAttack[AttackState]):
    """x ← project(x + α·direction of ∇loss), ``steps`` times or until the example is misclassified.

    ``pgd:100`` is short for 100 steps. Success is read from the logits that the gradient comes from.

    Attributes:
        steps: gradient steps from each start.
        step_size: size of a step in the threat's norm, in units of images in [0, 1].
        relative_step_size: the same as a fraction of ε. If neither is given it is 2.5 / steps, which can cross the ball
            from any start and still turn (Madry et al.). Korshunova et al. 2021 take step_size 0.01 and 40 steps on
            MNIST, Fischer & Alemi 2020 a fraction of 4/3 / steps and 20 steps on CIFAR-10.
        decay: decrease the step size linearly, to 0 after the last step. If gradients are noisy, as those of a random
            model are, the last steps then average over the noise.
        restarts: starts per example; only robust examples get another.
        random_start: start uniformly in the ball rather than at the image itself.
        loss: what to ascend, from :mod:`isthmus.attacks.losses`.
        targets: "none"; "random" directs every run at a wrong class drawn for it; "all" makes a run for every wrong
            class from each start. Any wrong class is a success.
        eot: draws of a random model to average over at each step.
    """

    argument: ClassVar[str | None] = "steps"
    name: Literal["pgd"] = "pgd"
    steps: Annotated[int, Field(gt=0)] = 40
    step_size: Size | None = None
    relative_step_size: Size | None = None
    decay: bool = False
    restarts: Annotated[int, Field(gt=0)] = 1
    random_start: bool = True
    loss: Literal["ce", "margin", "log_odds", "dlr", "probability"] = "ce"
    targets: Literal["none", "random", "all"] = "none"
    eot: Annotated[int, Field(gt=0)] = 1

    @model_validator(mode="after")
    def _coherent(self) -> PGD:
        if self.step_size is not None and self.relative_step_size is not None:
            raise ValueError("give step_size or relative_step_size, not both")
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts without random_start would repeat one run; set random_start, or restarts to 1")
        return self

    def size(self, eps: float) -> float:
        """Size of a step in a ball of radius ε."""
        if self.step_size is not None:
            return self.step_size
        return eps * (self.relative_step_size or 2.5 / self.steps)

    @property
    def n_targets(self) -> int:
        """All wrong classes if ``targets`` is "all", else 0."""
        return self._classes - 1 if self.targets == "all" else 0

    @property
    def directed(self) -> bool:
        """Whether the option ``targets`` is not "none"."""
        return self.targets != "none"

    def target_class(
        self, number: int, ranked: Int[Tensor, "n classes"], scores: Float[Tensor, "n runs"], keys: Int[Tensor, " n"]
    ) -> Int[Tensor, " n"] | None:
        """No class, every wrong class in turn, or one drawn for each run."""
        if self.targets != "random":
            return super().target_class(number, ranked, scores, keys)
        drawn = (uniform(fold(keys, "pgd/target_class"), (1,)) * ranked.shape[1]).long()
        return ranked.gather(1, drawn).squeeze(1)

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> AttackState:
        """Start uniformly in the ball, or at the image."""
        x = self.threat.random_start(batch.images, batch.keys) if self.random_start else batch.images.clone()
        return AttackState(x, *counters(len(batch), self.steps, x))

    def step(self, state: AttackState, batch: Batch, answer: Answer) -> None:
        """One step of steepest ascent, projected."""
        size: float | Tensor = self.size(self.threat.eps)
        if self.decay:
            size = size * (1 - state.step / self.steps)
        state.x = self.threat.project(self.threat.step(state.x, answer.gradient, size), batch.images)
        state.step += 1
