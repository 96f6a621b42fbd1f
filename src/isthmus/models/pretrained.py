"""Start a model from pretrained weights, of the whole model or of its backbone, as far as they fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from isthmus.core import files
from isthmus.core.errors import ModelError
from isthmus.models import external, identity
from isthmus.models.external.weights import read_weights

OWN = ("log_prior", "kernel_variance")
"""Buffers that describe the training data of this run, and are never taken from other weights."""

_BACKBONES = ("backbone.", "front.")  # of bottlenecks, of models of label hypotheses
_NAMED = 4


@dataclass(frozen=True)
class Pretrained:
    """What was taken from pretrained weights.

    Attributes:
        source: file or name of a hub.
        sha256: of the file, or of the hub's weights.
        part: "model", or "backbone" if the weights are of a backbone alone.
        loaded: number of tensors that were taken.
        missing: tensors of that part that the source does not have.
        other_shape: tensors of that part that have another shape in the source.
        unexpected: tensors of the source that the model does not have.
    """

    source: str
    sha256: str
    part: str
    loaded: int
    missing: tuple[str, ...]
    other_shape: tuple[str, ...]
    unexpected: tuple[str, ...]

    def report(self) -> str:
        """What was not taken, as a sentence; empty if everything fits."""
        lacking = {
            "missing in it": self.missing,
            "of another shape": self.other_shape,
            "not in the model": self.unexpected,
        }
        faults = [f"{what}: {_some(names)}" for what, names in lacking.items() if names]
        if not faults:
            return ""
        return f"{self.loaded} tensors of the {self.part} come from {self.source}; {'; '.join(faults)}."


def initialise(model: nn.Module, source: str) -> Pretrained:
    """Load weights into a model as far as names and shapes fit; everything else keeps its initial value.

    Names may be those of the whole model or of its backbone, with or without one prefix such as "model.".

    Args:
        model: as a recipe builds it.
        source: a safetensors file, a ``.pt`` file of a state dict (read with ``weights_only``), or ``timm:NAME``,
            ``torchvision:NAME``, ``hf:NAME``, ``robustbench:NAME`` for the pretrained weights of a hub.

    Raises:
        FileError: the file is missing, damaged, or holds more than tensors.
        ModelError: no tensor fits.
    """
    whole = {name: value for name, value in model.state_dict().items() if name not in OWN}
    parts = {"model": whole}
    for prefix in _BACKBONES:
        inner = {name.removeprefix(prefix): value for name, value in whole.items() if name.startswith(prefix)}
        parts |= {"backbone": inner} if inner else {}
    given, digest = _source(source, {name for part in parts.values() for name in part})
    state = {name: value for name, value in given.items() if name not in OWN}
    candidates = [
        (sum(_fits(name, value, part) for name, value in given.items()), kind, given)
        for kind, part in parts.items()
        for given in _without_prefix(state)
    ]
    count, kind, given = max(candidates, key=lambda candidate: candidate[0])
    if not count:
        raise ModelError(
            f"No tensor of {source} fits the model: it has {_some(state)}, and the backbone has "
            f"{_some(parts.get('backbone', whole))} (names and shapes must agree)."
        )
    part = parts[kind]
    with torch.no_grad():
        for name, value in given.items():
            if _fits(name, value, part):
                part[name].copy_(value)
    return Pretrained(
        source,
        digest,
        kind,
        count,
        tuple(name for name in part if name not in given),
        tuple(name for name in part if name in given and not _fits(name, given[name], part)),
        tuple(name for name in given if name not in part),
    )


def digest_of(source: str) -> str:
    """SHA-256 of a file of weights; empty for a name of a hub, and if there is no such file."""
    return "" if external.is_hub(source) or not Path(source).is_file() else files.sha256(Path(source).read_bytes())


def _source(source: str, expected: set[str]) -> tuple[Mapping[str, Tensor], str]:
    if external.is_hub(source):
        model = external.pretrained(source)
        return model.state_dict(), identity.fingerprint(model)
    return read_weights(source, expected), digest_of(source)


def _without_prefix(state: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
    """The weights as they are, and those below each first name, such as "model"."""
    yield state
    for prefix in dict.fromkeys(f"{name.partition('.')[0]}." for name in state if "." in name):
        yield {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _fits(name: str, value: Tensor, part: Mapping[str, Tensor]) -> bool:
    own = part.get(name)
    return own is not None and own.shape == value.shape and own.is_floating_point() == value.is_floating_point()


def _some(names: object) -> str:
    known = list(names)  # type: ignore[call-overload]
    more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    return ", ".join(known[:_NAMED]) + more
