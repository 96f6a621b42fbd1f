"""An attack on one model as a function of images and labels, without an evaluation: for training loops.

Nothing is verified, counted, saved or resumed, and examples are not selected. What an attack finds is what its last
iterate is, as in torchattacks and Foolbox; only :func:`isthmus.robust_accuracy` measures robust accuracy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch import Tensor, nn

from isthmus.attacks.engine import inputs
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.losses import Loss, ranked_classes
from isthmus.attacks.threats import Linf, Threat, parse
from isthmus.core.errors import ConfigError, DataError
from isthmus.core.preserve_state import device_of, in_mode
from isthmus.core.randomness import example_keys
from isthmus.data import given
from isthmus.data.images import check_images

if TYPE_CHECKING:
    from isthmus.attacks.attack import Attack, IterativeAttack


class BoundAttack:
    """An attack on one model and threat: ``adversarial = attack(images, labels)``. :meth:`Attack.bind` makes it.

    The images it returns are inside ball and box, without gradient, on the device of those given. For an attack that
    follows a gradient inside the ball, they are those that its run ends with (for APGD, those of highest loss). Other
    attacks end at the first success. Of several runs, by ``restarts`` or target classes, a later one attacks only
    examples that the ones before did not break, and the image of smallest margin counts.

    Parameters, their gradients and ``requires_grad``, buffers and the mode of each module are left as they were. The
    attack's own randomness derives from ``seed``, the number of the call and the position in the batch, and never from
    torch's generators.

    Attributes:
        attack: the attack, with its options.
        model: the model, which may change between calls, as in training.
        threat: the ball; None for ε = 0.
        calls: calls so far.

    Args: those of :meth:`isthmus.attacks.attack.Attack.bind`.
    """

    def __init__(
        self,
        attack: Attack,
        model: nn.Module,
        threat: Threat | str | float,
        *,
        loss: Loss | None = None,
        eval_mode: bool = True,
        seed: int = 0,
    ) -> None:
        inputs.check_model(model)
        self.attack, self.model, self.threat = attack, model, _threat(threat)
        self.loss, self.eval_mode, self.seed, self.calls = loss, eval_mode, inputs.check_seed(seed), 0
        _check(attack, self.threat, loss)
        self._counted_model = CountedModel(model)

    def __repr__(self) -> str:
        return f"{self.attack!r}.bind({type(self.model).__name__}, {str(self.threat) if self.threat else 0!r})"

    def __call__(
        self,
        images: Float[Tensor, "n c h w"] | ArrayLike,
        labels: Int[Tensor, " n"] | ArrayLike,
        targets: Int[Tensor, " n"] | ArrayLike | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """Attack one batch.

        Args:
            images: in [0, 1]; attacked in float32.
            labels: true classes; with a ``loss`` of your own, its second argument, with one row for each image.
            targets: classes to reach, for a targeted attack; any wrong class by default.

        Raises:
            DataError: images, labels or targets of a wrong type, shape or range.
            ModelError: the model fails, returns something other than N×K logits, or has no gradient.
        """
        batch, self.calls = self._batch(images, labels, targets), self.calls + 1
        if self.threat is None:
            return batch.images.clone()
        device = device_of(self.model, batch.images)
        with in_mode(self.model, False if self.eval_mode else None):
            on_device = batch.to(device)
            if self.loss is None:
                inputs.check_classes(batch, self._classes(on_device))
            found = self.attack.attempt(self._counted_model, on_device, self.threat, self.loss)
        return found.detach().to(batch.images.device)

    def _batch(self, images: Any, labels: Any, targets: Any) -> Batch:
        """The examples, with keys of this call."""
        if self.loss is None:
            batch = inputs.examples(images, labels, targets=targets, seed=self.seed)
            return self._keyed(batch)
        if targets is not None:
            raise ConfigError("A loss of your own says what the attack ascends; give no targets beside it.")
        images = given.tensor(images, "images")
        check_images(images)
        if not isinstance(labels, Tensor) or labels.shape[:1] != images.shape[:1]:
            raise DataError(
                f"The second argument of your loss must be a tensor with a row for each of {len(images)} images."
            )
        keys = example_keys(self.seed, torch.arange(len(images), device=images.device))
        return self._keyed(Batch(images.detach().float(), labels.detach(), keys))

    def _keyed(self, batch: Batch) -> Batch:
        return batch.folded("bound_attack/call", self.calls)

    def _classes(self, batch: Batch) -> int:
        """The number of logits, by one forward pass at the first call."""
        if self._counted_model.classes is None:
            self._counted_model.logits(batch.images, batch.keys)
        assert self._counted_model.classes is not None
        return self._counted_model.classes


def _threat(given: Threat | str | float) -> Threat | None:
    if isinstance(given, Threat):
        return given
    if isinstance(given, str):
        return parse(given)
    return None if given == 0 and not isinstance(given, bool) else Linf(given)


def _check(attack: Attack, threat: Threat | None, loss: Loss | None) -> None:
    if [stage.attack for stage in attack.stages()] != [attack]:
        raise ConfigError(
            f"The attack {attack.name!r} consists of several stages, each for the examples that the ones before leave. "
            "Use robust_accuracy, or bind one attack, such as apgd."
        )
    runs = 1 if threat is None else attack.runs_in(threat, 2)  # raises if it does not support the norm
    if loss is None:
        return
    fits = "loss" in type(attack).model_fields and getattr(attack, "gradient", False)
    if not fits or runs > 1 or getattr(attack, "directed", False):
        raise ConfigError(
            f"The attack {attack.name!r} cannot ascend a loss of your own: it needs a gradient, the option 'loss' and "
            f"one run without targets. Use PGD or APGD; got {attack!r}."
        )


# --- attacks without the engine ---

Once = Callable[[Batch, Tensor, int], Tensor]
"""From examples, their rows and the number of a run to the images that this run ends with."""


def best_of(runs: int, once: Once, counted_model: CountedModel, batch: Batch) -> Float[Tensor, "n c h w"]:
    """The image of smallest margin over several runs; later runs attack only what earlier ones did not break."""

    def run(part: Batch, rows: Tensor, number: int) -> Tensor:
        return once(part.folded("bound_attack/run", number), rows, number)

    images = run(batch, torch.arange(len(batch), device=batch.keys.device), 0)
    if runs == 1:
        return images
    margin = batch.margin(counted_model.logits(images, batch.keys))
    for number in range(1, runs):
        rows = (margin >= 0).nonzero().squeeze(1)
        if len(rows) == 0:
            break
        part = batch.take(rows)
        found = run(part, rows, number)
        reached = part.margin(counted_model.logits(found, part.keys))
        closer = reached < margin[rows]
        images[rows[closer]], margin[rows[closer]] = found[closer], reached[closer]
    return images


def attempt(
    attack: IterativeAttack[Any], counted_model: CountedModel, batch: Batch, threat: Threat, loss: Loss | None
) -> Float[Tensor, "n c h w"]:
    """All runs of an iterative attack; see :meth:`isthmus.attacks.attack.Attack.attempt`."""
    ranked: Tensor | None = None
    if attack.directed:
        ranked = ranked_classes(counted_model.logits(batch.images, batch.keys), batch.labels)
    attack = attack.for_threat(threat, counted_model.classes or 0)
    unknown = batch.images.new_full((len(batch), attack.runs), torch.nan)
    if attack.draws > 1:
        counted_model.random = True  # the option asks for an average

    def once(part: Batch, rows: Tensor, number: int) -> Tensor:
        if ranked is not None and part.targets is None:
            part.target_class = attack.target_class(number, ranked[rows], unknown[rows], part.keys)
        return _run(attack, counted_model, part, number, loss)

    return best_of(attack.runs, once, counted_model, batch)


def _run(
    attack: IterativeAttack[Any], counted_model: CountedModel, batch: Batch, number: int, loss: Loss | None
) -> Float[Tensor, "n c h w"]:
    """One run of every example to its end; a row leaves when it ends."""
    threat, originals = attack.threat, batch.images
    state = attack.init(batch, torch.full_like(batch.keys, number))
    stops = loss is None and not (attack.gradient and attack.inside)  # at its first success
    images, left = originals.clone(), torch.arange(len(batch), device=batch.keys.device)
    while True:
        answer = counted_model.query(
            state.x, batch.keys, _objective(attack, state, batch, loss), draw=state.step, eot=attack.draws
        )
        over = torch.zeros_like(left, dtype=torch.bool)
        if stops:
            over = batch.reached(answer.logits) & answer.finite
            if not attack.inside:
                over &= threat.contains(state.x, batch.images)
            images[left[over]] = state.x[over]
        attack.step(state, batch, answer)
        ended = (state.step >= state.budget) & ~over
        if ended.any():
            images[left[ended]] = attack.end(state)[ended]
        over |= ended
        if over.all():
            break
        if over.any():
            left, batch, state = left[~over], batch.take(~over), state.take(~over)
    return images if attack.inside else threat.project(images, originals)


def _objective(
    attack: IterativeAttack[Any], state: Any, batch: Batch, loss: Loss | None
) -> Callable[[Tensor], Tensor] | None:
    """What a query ascends; None if no row needs a gradient."""
    if loss is not None:
        return lambda logits: loss(logits, batch.labels)
    wants = attack.wants(state) if attack.gradient else None
    if not attack.gradient or (wants is not None and not wants.any()):
        return None
    return lambda logits: attack.objective(state, batch, logits)
