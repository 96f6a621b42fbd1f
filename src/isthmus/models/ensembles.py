"""Predictions averaged over several models, or over the dropout masks of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.overrides import has_torch_function_unary

from isthmus.core.errors import ModelError, shown
from isthmus.core.randomness import fold, uniform
from isthmus.models import outputs
from isthmus.models.modes import Averaged

_PROBED = 8  # images from which on outputs that all sum to 1 are taken for probabilities


class Ensemble(nn.Module):
    """ln (1/M) Σ_m p_m(y|x), log-probabilities as logits; attacks differentiate through all members.

    A member that takes ``keys`` gets keys of its own, which derive from those that the ensemble is given.

    Args:
        models: from images in [0, 1] to logits of the same classes. A bottleneck counts in mean mode.

    Raises:
        ModelError: no model, one model rather than a list, or something else among them.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        given: object = models
        if isinstance(given, nn.Module) and not isinstance(given, nn.ModuleList):  # a Sequential has a length, too
            raise ModelError(f"An ensemble is of a list of models; got one {type(given).__name__}.")
        if not models:
            raise ModelError("An ensemble needs at least one model; got none.")
        if others := [type(model).__name__ for model in models if not isinstance(model, nn.Module)]:
            raise ModelError(f"The models of an ensemble are nn.Modules; got {others[0]}.")
        self.members = nn.ModuleList([outputs.Plain(model) for model in models])
        self.takes_keys = any(member.takes_keys for member in self.members)

    def forward(
        self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n classes"]:
        """Averaged log-probabilities.

        Raises:
            ModelError: a member returns probabilities, or the members have different numbers of classes.
        """
        found: list[Tensor] = []
        for number, member in enumerate(self.members):
            if member.takes_keys:
                answer = member(images, None if keys is None else fold(keys, "ensembles/member", number))
            else:
                answer = member(images)
            if not has_torch_function_unary(answer):  # not where attacks trace a faster copy
                answer = outputs.two(answer) if outputs.is_one(answer, len(images)) else answer
                self._check(answer, found, number)
            found.append(answer.log_softmax(1))
        return torch.logsumexp(torch.stack(found), 0) - math.log(len(found))

    @staticmethod
    def _check(answer: Tensor, before: Sequence[Tensor], number: int) -> None:
        if len(answer) >= _PROBED and outputs.sum_to_one(answer):
            raise ModelError(
                f"Model {number} of the ensemble (from 0) returns probabilities, and their softmax would be averaged. "
                "Return the logits, or wrap it: isthmus.models.outputs.LogProbabilities(model)."
            )
        if before and answer.shape[1] != before[0].shape[1]:
            raise ModelError(
                f"Model {number} of the ensemble (from 0) has {answer.shape[1]} classes, and the first "
                f"{before[0].shape[1]}; average models of the same classes."
            )


def ensemble(models: Sequence[nn.Module]) -> Ensemble:
    """A deep ensemble (Lakshminarayanan et al. 2017): the mean of the models' probabilities, as log-probabilities.

    It is a classifier like any other: audited as one model, and attacked as a whole. Its members keep their weights and
    their training or eval mode.

    Args:
        models: from images in [0, 1] to logits of the same classes.

    Raises:
        ModelError: no model, one model rather than a list, or something else among them; when it is called, a member
            returns probabilities, or members have different numbers of classes.
    """
    return Ensemble(models)


class MCDropout(Averaged):
    """ln (1/S) Σ_s p(y|x, mask_s): the average over dropout masks, reproducible from keys.

    Each image's masks derive from its key, so that predictions do not depend on the rest of the batch. Without keys
    every call draws new ones.

    Args:
        model: from images to logits, in eval mode, with layers ``nn.Dropout`` (also 1d, 2d, 3d).
        samples: S.
        seed: of calls without keys.
    """

    def __init__(self, model: nn.Module, samples: int = 12, seed: int = 0) -> None:
        super().__init__(model, samples, seed)
        if not isinstance(samples, int) or samples < 1:
            raise ModelError(f"MC dropout needs at least one sample, and a whole number of them; got {shown(samples)}.")
        if not isinstance(model, nn.Module):
            raise ModelError(f"MC dropout takes an nn.Module; got {type(model).__name__}.")
        others = [type(layer).__name__ for layer in model.modules() if isinstance(layer, _UNSUPPORTED)]
        if others:
            raise ModelError(f"MC dropout knows nn.Dropout and its 1d, 2d and 3d forms; the model has {others[0]}.")
        if not self._layers():
            raise ModelError("The model has no layer nn.Dropout with p > 0, so that MC dropout would change nothing.")

    def extra_repr(self) -> str:
        """The options, so that models with other ones are told apart."""
        return f"samples={self.samples}, seed={self.seed}"

    def forward_draws(self, images: Tensor, keys: Tensor) -> Tensor:
        """Averages over S passes for each column of keys."""
        found = []
        for column in keys.T:
            passes = [self._pass(images, fold(column, "ensembles/mask", sample)) for sample in range(self.samples)]
            found.append(self._averaged(torch.stack(passes)))
        return torch.stack(found, 1)

    def _layers(self) -> list[nn.Module]:
        return [layer for layer in self.model.modules() if isinstance(layer, _DROPOUT) and layer.p > 0]

    def _pass(self, images: Tensor, keys: Tensor) -> Tensor:
        """Logits under one mask of each dropout layer for each image."""
        calls = [0]
        hooks = [layer.register_forward_hook(partial(_drop, keys, calls)) for layer in self._layers()]
        try:
            answer = outputs.unwrapped(self.model(images.clone())).float()
        finally:
            for hook in hooks:
                hook.remove()
        return outputs.two(answer) if outputs.is_one(answer, len(images)) else answer


_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_UNSUPPORTED = (nn.AlphaDropout, nn.FeatureAlphaDropout)


def _drop(keys: Tensor, calls: list[int], layer: Any, _inputs: Any, output: Tensor) -> Tensor:
    """The output of a dropout layer in eval mode, its input, with some of it set to zero and the rest scaled up."""
    if layer.training:
        return output
    if len(output) != len(keys):
        raise ModelError(
            f"A dropout layer sees {len(output)} rows for {len(keys)} images, so that its masks cannot be drawn for "
            "each image. Leave the layers in training mode instead, and audit the model as one with random predictions."
        )
    calls[0] += 1
    whole = tuple(output.shape[1:])
    shape = whole if type(layer) is nn.Dropout else (*whole[:1], *(1 for _ in whole[1:]))
    kept = uniform(fold(keys, "ensembles/layer", calls[0]), shape) >= layer.p
    return output * kept / (1 - layer.p) if layer.p < 1 else output * 0


def mc_dropout(model: nn.Module, samples: int = 12) -> MCDropout:
    """Monte Carlo dropout (Gal & Ghahramani 2016): dropout stays active, and probabilities are averaged over masks.

    An audit takes it as a random model whose every prediction is the average over ``samples`` masks; attacks average
    over new masks at each step, and success is verified on masks that they have not seen.

    Args:
        model: from images in [0, 1] to logits, with layers ``nn.Dropout``. It is put into eval mode.
        samples: masks per prediction.

    Raises:
        ModelError: no such layer, or another kind of dropout.
    """
    return MCDropout(model, samples).eval()
