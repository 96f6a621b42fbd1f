"""What a model does besides classifying: it changes its input, global settings, random generators, or its own mode.

None of this makes the numbers of isthmus wrong, which gives a model copies and restores the rest. The caller's own code
has no such protection.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from isthmus.core import randomness
from isthmus.core.format import listed
from isthmus.core.preserve_state import restore_settings, settings
from isthmus.core.types import Caution
from isthmus.models.modes import seeded


def training_mode(model: nn.Module) -> tuple[Caution, ...]:
    """Whether a model is given with layers in training mode that predict otherwise in eval mode."""
    if not _in_training_mode(model):
        return ()
    return (
        Caution(
            about="training_mode",
            level="note",
            text="The model was given in training mode. isthmus evaluates it in eval mode; the rest of your program "
            "does not. Call model.eval() before you use it.",
        ),
    )


def _in_training_mode(model: nn.Module) -> list[str]:
    """Names of the layers that predict otherwise in training mode and are in it."""
    named = model.named_modules()
    return [name or "it" for name, layer in named if isinstance(layer, _BatchNorm | _DropoutNd) and layer.training]


def cautions(model: nn.Module, images: Tensor, seed: int, before: Mapping[str, Any]) -> Iterator[Caution]:
    """Call a model twice on a few images, in eval mode, and note what changes besides its answer.

    Args:
        before: torch's settings before the model's first call; they are restored.
    """
    first, second = (_call(model, images, seed + call, before) for call in range(2))
    restore_settings(before)
    if first["images"]:
        yield Caution(
            about="input",
            level="note",
            text="The model changes its input in place. isthmus gives it copies, so these numbers are right; code that "
            "uses the images after a call does not. Compute a new tensor, such as (images - mean) / std, in place of "
            "sub_ and div_.",
        )
    if changed := sorted({*first["settings"], *second["settings"]}):
        yield Caution(
            about="settings",
            level="note",
            text=f"The model calls {listed(changed)} when it classifies. isthmus restores these settings; the rest of "
            "your program keeps them. Call them once, outside forward.",
        )
    seeds = [name for name, state in first["generators"].items() if state == second["generators"][name]]
    if seeds:
        yield Caution(
            about="seeds",
            level="note",
            text=f"The model calls {listed(seeds)} when it classifies, so that every later random number of your "
            "program, and all noise of the model, is the same after each call; isthmus restores the generators. Give "
            "the model a torch.Generator of its own.",
        )
    if training := _in_training_mode(model):
        yield Caution(
            about="training_mode",
            level="warning",
            text=f"After model.eval(), {listed(training[:3])} is still in training mode: dropout and batch statistics "
            "then make predictions depend on chance and on the batch. Do not set training mode in forward, and let "
            "train(False) reach every layer.",
        )


def _call(model: nn.Module, images: Tensor, seed: int, before: Mapping[str, Any]) -> dict[str, Any]:
    """What a call with these seeds changes, and the states of the random generators after it."""
    given, keys = images.clone(), randomness.example_keys(0, torch.arange(len(images), device=images.device))
    options = {"keys": keys} if getattr(model, "takes_keys", False) else {}
    with seeded(seed, images.device), torch.no_grad():
        model(given, **options)
        generators = {
            "torch.manual_seed": torch.get_rng_state().tolist(),
            "numpy.random.seed": [np.asarray(part).tolist() for part in np.random.get_state()],  # noqa: NPY002
            "random.seed": random.getstate(),
        }
    return {
        "images": not torch.equal(given, images),
        "settings": [name for name, value in settings().items() if value != before[name]],
        "generators": generators,
    }
