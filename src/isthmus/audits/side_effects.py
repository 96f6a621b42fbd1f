"""What a model does besides classifying: it changes its input, global settings, random generators, or its own mode.

None of this makes the numbers of isthmus wrong, which gives a model copies and restores the rest. The caller's own code
has no such protection.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from isthmus.core import randomness
from isthmus.core.format import listed
from isthmus.core.preserve_state import SETTINGS, restore_settings
from isthmus.core.types import Caution
from isthmus.models.modes import seeded


def training_mode(model: nn.Module) -> tuple[Caution, ...]:
    """Whether a model is given with layers in training mode that predict otherwise in eval mode."""
    if not any(module.training for module in model.modules() if isinstance(module, _BatchNorm | _DropoutNd)):
        return ()
    return (
        Caution(
            about="training_mode",
            level="note",
            text="The model was given in training mode. isthmus evaluates it in eval mode; the rest of your program "
            "does not. Call model.eval() before you use it.",
        ),
    )


def cautions(model: nn.Module, images: Tensor, seed: int) -> Iterator[Caution]:
    """Call a model twice on a few images, in eval mode, and note what changes besides its answer."""
    first, second = (_call(model, images, seed + call) for call in range(2))
    if first["images"]:
        yield Caution(
            about="input",
            level="note",
            text="The model changes its input in place. isthmus gives it copies, so these numbers are right; code that "
            "uses the images after a call does not. Compute a new tensor, such as (images - mean) / std, in place of "
            "sub_ and div_.",
        )
    changed = sorted({*first["settings"], *second["settings"]})
    if changed:
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
    training = [name or type(model).__name__ for name, module in model.named_modules() if module.training]
    if training:
        yield Caution(
            about="training_mode",
            level="warning",
            text=f"After model.eval(), {listed(training[:3])} is still in training mode: dropout and batch statistics "
            "then make predictions depend on chance and on the batch. Do not set training mode in forward, and let "
            "train(False) reach every layer.",
        )


def _call(model: nn.Module, images: Tensor, seed: int) -> dict[str, Any]:
    """What a call with these seeds changes, and the states of the random generators after it."""
    given, before = images.clone(), {name: read() for name, (read, _) in SETTINGS.items()}
    keys = randomness.example_keys(0, torch.arange(len(images), device=images.device))
    options = {"keys": keys} if getattr(model, "takes_keys", False) else {}
    try:
        with seeded(seed, images.device), torch.no_grad():
            model(given, **options)
            found = {
                "torch.manual_seed": torch.get_rng_state().numpy().tobytes(),
                "numpy.random.seed": str([np.asarray(part).tolist() for part in np.random.get_state()]),  # noqa: NPY002
                "random.seed": repr(random.getstate()),
            }
            after = {name: read() for name, (read, _) in SETTINGS.items() if name != "torch.set_grad_enabled"}
    finally:
        restore_settings(before)
    return {
        "images": not torch.equal(given, images),
        "settings": [name for name, value in after.items() if value != before[name]],
        "generators": found,
    }
