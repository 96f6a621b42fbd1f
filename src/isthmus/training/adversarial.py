"""Adversarial training: attack each batch before the model learns from it (Madry et al. 2018, arXiv:1706.06083).

Training minimises E[max_δ L(x + δ, y)] over the perturbations δ of a threat. PGD (:mod:`isthmus.attacks.pgd`)
approximates the inner maximum. It ascends a loss of the model's logits, whatever the objective; the objective's terms
are then those of the adversarial images. All randomness derives from (seed, step, example), so that a resumed run,
several processes and gradient accumulation attack every image in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.attacks import PGD
from isthmus.attacks.attack import AttackState
from isthmus.attacks.engine import batch as attacked
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.threats import parse
from isthmus.core.errors import ConfigError, ModelError
from isthmus.core.preserve_state import in_mode
from isthmus.core.randomness import example_keys, fold
from isthmus.core.recipe import Recipe
from isthmus.core.training_options import Adversarial
from isthmus.data.batches import Batch
from isthmus.models.bottleneck import Bottleneck
from isthmus.models.learner import Learner
from isthmus.models.modes import StochasticMode
from isthmus.training.loss_scale import LossScale
from isthmus.training.processes import ProcessGroup


class Adversary:
    """Computes adversarial images for a model in training, without changing its parameters or buffers.

    Args:
        settings: the attack, its threat and mode.
        model: the model in training.
        seed: of all starts and noise.
        autocast: context manager of the forward passes, for mixed precision.
        loss_scale: multiplies the loss before its gradient is taken, as in training.

    Raises:
        ConfigError: an invalid threat, or stochastic mode for a model without it.
    """

    def __init__(
        self,
        settings: Adversarial,
        model: Learner,
        seed: int = 0,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        loss_scale: LossScale | None = None,
    ) -> None:
        try:
            self.threat = parse(settings.threat)
        except ConfigError as error:
            raise ConfigError(f"training.adversarial.threat: {error}") from None
        self.settings, self.model, self.seed = settings, model, seed
        self.autocast, self.loss_scale = autocast, loss_scale or LossScale(None)
        self.view = _view(model, settings)
        options = settings.model_dump(include={"steps", "step_size", "random_start", "loss"})
        self.pgd = PGD(**options).for_threat(self.threat, classes=0)

    @classmethod
    def of_recipe(cls, recipe: Recipe, model: Learner, group: ProcessGroup) -> Adversary | None:
        """The adversary of a recipe; None without adversarial training."""
        settings = recipe.training.adversarial
        if settings is None:
            return None
        return cls(settings, model, recipe.seed, group.fabric.autocast, group.loss_scale)

    def attack(self, batch: Batch, step: int) -> Batch:
        """The same batch with adversarial images.

        Args:
            batch: images in [0, 1] after augmentation, and their positions in the split.
            step: the training step, which keys the random draws.
        """
        keys = fold(example_keys(self.seed, batch.indices), "adversarial/step", step)
        return batch._replace(images=self.perturb(batch.images, batch.labels, keys))

    def perturb(
        self, images: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"], keys: Int[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """Adversarial images within the threat and in [0, 1].

        Args:
            images: in [0, 1].
            labels: true classes, from which the attack leads away.
            keys: one per image, for its random draws (:mod:`isthmus.core.randomness`).

        Raises:
            ModelError: the logits have no gradient with respect to the images.
        """
        batch = attacked.Batch(images, labels, fold(keys, "adversarial/start"))
        state: AttackState = self.pgd.init(batch, torch.zeros_like(labels))
        train = self.settings.batch_norm == "train"
        # while training, the mode of each layer: frozen batch normalisation is in eval mode
        with in_mode(self.model, None if train and self.model.training else train):
            for number in range(self.settings.steps):
                self.pgd.step(state, batch, self._query(state.x, batch, fold(keys, "adversarial/noise", number)))
        return state.x.detach()

    def _query(self, images: Tensor, batch: attacked.Batch, keys: Tensor) -> Answer:
        """Logits and the gradient of the mean loss. A gradient that overflowed is set to zero."""
        leaf = images.detach().requires_grad_()
        options = {"keys": keys} if isinstance(self.view, StochasticMode) else {}
        with self.autocast():
            logits = self.view(leaf, **options)
        values = batch.ascend(self.settings.loss, logits.float())
        (gradient,) = torch.autograd.grad(self.loss_scale.scaled(values.mean()), leaf, allow_unused=True)
        if gradient is None:
            raise ModelError(
                "The model's logits have no gradient with respect to its images, so that adversarial training is "
                "impossible; remove what detaches them, or training.adversarial."
            )
        return Answer(logits.detach(), values.detach(), torch.where(gradient.isfinite(), gradient, 0.0))


def _view(model: Learner, settings: Adversarial) -> nn.Module:
    """The model to attack: itself, or its stochastic mode.

    Raises:
        ConfigError: the model has no stochastic mode.
    """
    if settings.mode == "mean":
        return model
    if not isinstance(model, Bottleneck) or not model.stochastic:
        raise ConfigError(
            "training.adversarial.mode=stochastic attacks the random codes of a bottleneck, but this model has none; "
            "use mode=mean."
        )
    return StochasticMode(model, model.samples)
