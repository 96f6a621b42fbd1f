"""Layers that are not trained."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from isthmus.core.errors import ConfigError, unknown

_SHOWN = 2  # levels of names in a message


class FrozenLayers:
    """Freezes layers and weights by the patterns of ``model.freeze``.

    Frozen weights need no gradient, and no optimiser or moving average changes them. Batch normalisation in a frozen
    layer, or with frozen weights, keeps its running statistics and uses them.

    Args:
        model: the model in training.
        patterns: of names of modules or parameters, as in the shell: ``*`` stands for any characters, dots included.

    Raises:
        ConfigError: a pattern matches nothing, or nothing is left to train.
    """

    def __init__(self, model: nn.Module, patterns: Sequence[str]) -> None:
        modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
        frozen: set[nn.Module] = set()
        for pattern in patterns:
            layers = [module for name, module in modules.items() if name and fnmatchcase(name, pattern)]
            weights = [value for name, value in parameters.items() if fnmatchcase(name, pattern)]
            if not layers and not weights:
                upper = [name for name in modules if name and name.count(".") < _SHOWN]
                raise ConfigError(f"model.freeze: {unknown('layer', pattern, upper)}")
            for module in layers:
                frozen |= set(module.modules())
                module.requires_grad_(False)
            for value in weights:
                value.requires_grad_(False)
        if patterns and not any(value.requires_grad for value in parameters.values()):
            raise ConfigError(f"model.freeze={list(patterns)} leaves no weight to train; freeze fewer layers.")
        self._kept = [
            module
            for module in modules.values()
            if isinstance(module, _BatchNorm) and (module in frozen or _frozen_weights(module))
        ]

    def keep_statistics(self) -> None:
        """Return the frozen batch normalisations to eval mode; call after ``model.train()``."""
        for module in self._kept:
            module.eval()


def _frozen_weights(module: nn.Module) -> bool:
    own = list(module.parameters())
    return bool(own) and not any(value.requires_grad for value in own)
