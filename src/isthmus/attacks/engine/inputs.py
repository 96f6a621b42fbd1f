"""Checks of arguments and outputs, one sentence for each fault."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.threats import Threat
from isthmus.core.errors import ConfigError, DataError, ModelError, shown
from isthmus.core.randomness import example_keys
from isthmus.data.given import images_and_labels, tensor
from isthmus.data.images import check_images, check_integers, check_labels

OptionsT = TypeVar("OptionsT")


def examples(
    images: Any,
    labels: Any,
    *,
    targets: Int[Tensor, " n"] | ArrayLike | None = None,
    seed: int = 0,
    indices: Int[Tensor, " n"] | ArrayLike | None = None,
) -> Batch:
    """Check images and labels, and give each example the key from which all its randomness derives.

    Args:
        images: in [0, 1], of any floating type, or 8-bit; attacked in float32. With labels, a tensor, an array or a
            list; without, see :func:`isthmus.data.given.images_and_labels`.
        labels: classes from 0 up, of any integer type.
        targets: classes to reach, for a targeted attack; none may equal its example's label.
        indices: positions in the data set, from which keys derive, so that a part of it is attacked as within the
            whole; 0..N−1 by default.

    Raises:
        DataError: a type, shape or range is wrong, or there are no examples.
    """
    images, labels = images_and_labels(images, labels)
    check_images(images)
    check_seed(seed)
    n, device = images.shape[0], images.device
    chosen = torch.arange(n) if indices is None else integers(indices, n, "indices")
    goals = None if targets is None else integers(targets, n, "targets").to(device)
    classes = integers(labels, n, "labels").to(device)
    if goals is not None and (goals == classes).any():
        row = int((goals == classes).nonzero()[0])
        raise DataError(f"Example {row} has its own label {int(classes[row])} as target; a target is another class.")
    return Batch(images.detach().float(), classes, example_keys(seed, chosen.to(device)), goals)


def check_threat_given(threat: object, labels: object) -> None:
    """Raise a ConfigError if there is no threat, with its place if it was given as the labels."""
    if threat is None:
        given = f" {shown(labels)} stands in the place of the labels." if isinstance(labels, str | Threat) else ""
        raise ConfigError(f"Give the norm and the largest ε by name: threat='linf:8/255'.{given}")


def check_model(model: object) -> None:
    """Raise a ModelError for anything that is not an ``nn.Module``."""
    if not isinstance(model, nn.Module):
        raise ModelError(f"A classifier is an nn.Module from images in [0, 1] to logits; got {_no_module(model)}")
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(value):
            raise ModelError(
                f"{name} of {type(model).__name__} has no shape yet: it is of a lazy layer. Call the model on one "
                "batch of images first."
            )
        if value.is_meta:
            raise ModelError(
                f"{name} of {type(model).__name__} is on the device 'meta', which holds no values; load the "
                "weights first."
            )


def _no_module(given: object) -> str:
    """What was given instead of a module, and what to do."""
    if isinstance(given, type):
        return f"the class {given.__name__}. Pass an instance of it."
    kind = type(given).__name__
    if isinstance(given, Mapping):
        return f"{kind}. Load weights into a module with load_state_dict, and pass the module."
    if isinstance(given, str | Path):
        return f"{kind}. isthmus.load loads a run folder, isthmus.load_model a model from elsewhere."
    if callable(given):
        return f"{kind}. isthmus.black_box makes one of a function of arrays, or of a scikit-learn classifier."
    return f"{kind}."


def check_classes(batch: Batch, classes: int) -> None:
    """Raise a DataError if a label or target is not one of the model's ``classes``."""
    for what, values in (("labels", batch.labels), ("targets", batch.targets)):
        if values is not None:
            check_labels(values, classes, what)


def check_logits(output: object, n: int) -> None:
    """Raise a ModelError if a model's output for n images is not N×K logits with K ≥ 2."""
    if not isinstance(output, Tensor):
        raise ModelError(
            f"The model returned {type(output).__name__} where a tensor of logits is expected; wrap it "
            "in a module that returns the logits alone."
        )
    if output.dim() != 2 or output.shape[0] != n or output.shape[1] < 2:
        raise ModelError(
            f"The model returned a tensor of shape {tuple(output.shape)} for {n} images; "
            f"expected ({n}, classes), or ({n}, 1) of a binary classifier."
        )


def check_proposals(proposals: object, originals: Tensor, label: str) -> Tensor:
    """An attack's proposals as float32, or a ConfigError if they are not one image per example."""
    if not isinstance(proposals, Tensor) or proposals.shape != originals.shape:
        given = tuple(proposals.shape) if isinstance(proposals, Tensor) else type(proposals).__name__
        raise ConfigError(
            f"The attack {label!r} must return one image per example, of shape "
            f"{tuple(originals.shape)}; it returned {given}."
        )
    return proposals.detach().to(originals.device, torch.float32)


def check_seed(seed: object) -> int:
    """Raise a ConfigError if a seed is not a whole number from 0 up."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ConfigError(f"seed must be a whole number from 0 to 2^63 - 1; got {shown(seed)}.")
    return seed


def integers(values: object, n: int, what: str) -> Tensor:
    """Integers from 0 up, one for each of n images, as int64; a DataError for anything else."""
    values = tensor(values, what)
    check_integers(values, what, n)
    if int(values.min()) < 0:
        raise DataError(f"{what} must not be negative; the smallest is {int(values.min())}.")
    return values.long()


def check_options(given: OptionsT | None, kind: type[OptionsT]) -> OptionsT:
    """The options, the defaults for None, or a ConfigError for anything else."""
    if given is None:
        return kind()
    if not isinstance(given, kind):
        raise ConfigError(
            f"options must be {kind.__name__}, such as {kind.__name__}(batch_size=64); got {type(given).__name__}."
        )
    return given


def check_whole(value: object, what: str) -> int:
    """Raise a ConfigError if a batch size or a number of processes is not a positive whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{what} must be a positive whole number; got {value!r}.")
    return value


def check_share(value: object, what: str) -> float:
    """Raise a ConfigError if a half-width is not a number between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ConfigError(f"{what} must be a share between 0 and 1, such as 0.01 for ±1%; got {value!r}.")
    return float(value)
