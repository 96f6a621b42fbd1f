"""PGD on one model whose last iterates are tried on another: what papers call a transfer attack."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import PrivateAttr
from torch import Tensor, nn

from isthmus.attacks import PGD
from isthmus.attacks.attack import SingleShotAttack
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.threats import Threat
from isthmus.core.preserve_state import preserve_state


class Surrogate(SingleShotAttack):
    """PGD's last iterate on another model, whether or not it broke that: what papers call a transfer attack.

    Attributes:
        steps: of PGD, of size 4/3·ε/steps each.
        source: what identifies the other model.
    """

    name: Literal["surrogate"] = "surrogate"
    steps: int
    source: str
    _model: nn.Module | None = PrivateAttr(None)

    def perturb(self, counted_model: CountedModel, batch: Batch, threat: Threat) -> Float[Tensor, "n c h w"]:
        """Steps on the other model's cross-entropy; the attacked model is not queried."""
        assert self._model is not None, "made by surrogate()"
        source = CountedModel(self._model)
        size = PGD(steps=self.steps, relative_step_size=4 / 3 / self.steps).size(threat.eps)
        x = threat.random_start(batch.images, batch.keys)
        with preserve_state(self._model, x.device, seed=0):
            for _ in range(self.steps):
                answer = source.query(x, batch.keys, lambda logits: batch.ascend("ce", logits))
                x = threat.project(threat.step(x, answer.gradient, size), batch.images)
        return x


def surrogate(source: nn.Module, steps: int, name: str) -> Surrogate:
    """A surrogate's attack; ``name`` identifies the source."""
    attack = Surrogate(steps=steps, source=name)
    attack._model = source
    return attack
