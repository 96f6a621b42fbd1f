"""Tests of a model before it is attacked: is it random or stateful, are its outputs logits, what fits into memory?"""

from __future__ import annotations

import copy
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.optimized_model import PROBE
from isthmus.attacks.engine.rounding import differ
from isthmus.attacks.threats import Threat
from isthmus.core.errors import ModelError
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.core.randomness import example_keys
from isthmus.models import outputs
from isthmus.models.modes import seeded

BATCH_SIZE = 256
"""Largest number of examples in a batch on a CPU."""

IMAGES = 16
"""Images on which statefulness and outputs are tested, evenly spread over those that are given."""

_COPIES = 12  # images of a row that an attack keeps, with room for temporaries


def is_random(counted_model: CountedModel, examples: Batch, device: torch.device) -> bool:
    """Whether logits of the first few images differ from pass to pass by more than rounding.

    A model that is random on other images alone is detected later, by
    :meth:`isthmus.attacks.engine.verifier.Verifier.query_again`.
    """
    batch = examples.take(torch.arange(min(len(examples), PROBE))).to(device)
    return differ(*(counted_model.logits(batch.images, batch.keys) for _ in range(2)))


def batch_size(counted_model: CountedModel, examples: Batch, device: torch.device) -> int:
    """How many examples fit: the largest power of two whose activations take at most half of the free memory.

    An example's activations are measured on a probe, as the bytes that autograd keeps for the backward pass; this works
    on any device. At most 256 on a CPU, where larger batches gain nothing, and 2048 elsewhere. If a batch does not fit
    nevertheless, the counted model halves it.
    """
    batch = examples.take(torch.arange(min(len(examples), PROBE))).to(device)
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model = counted_model.optimized_model
    weights = {t.untyped_storage().data_ptr() for ts in (model.parameters(), model.buffers()) for t in ts}
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor), suppress(ModelError):
        counted_model.query(batch.images, batch.keys, lambda logits: batch.ascend("ce", logits))
    each = sum(size for at, size in kept.items() if at not in weights) // len(batch)
    each += _COPIES * batch.images[0].numel() * batch.images.element_size()
    fits = _free_memory(device) // 2 // max(each, 1)
    most = BATCH_SIZE if device.type == "cpu" else 8 * BATCH_SIZE
    return min(most, 1 << max(int(fits).bit_length() - 1, 0))


def _free_memory(device: torch.device) -> int:
    """Free bytes; 2 GiB if the machine does not report them."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) * 1024
    return 2 * 1024**3


# --- stateful models ---


class FreshCopies(nn.Module):
    """A model of which each batch sees a new copy, so that no answer depends on earlier queries.

    Args:
        model: from images to logits, with or without keys; it is never called itself.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.takes_keys = bool(getattr(model, "takes_keys", False))

    def forward(self, images: Tensor, **options: Any) -> Tensor:
        """The copy's logits."""
        logits: Tensor = copy.deepcopy(self.model)(images, **options)
        return logits


def is_stateful(model: nn.Module, images: Float[Tensor, "n c h w"], threat: Threat, seed: int = 0) -> bool | None:
    """Whether predictions on images near the given ones depend on earlier queries of the given ones.

    A cache of early answers, as services have one, answers an adversarial image with the logits of the clean image, so
    that no attack succeeds; queried with the adversarial image alone, the model errs. The same holds for a model that
    learns from its input.

    Queries copies, never the model itself: one with the images and then their neighbours, another with the neighbours
    alone. A model whose answer to the neighbours changes when it is repeated counts as random, not as stateful.

    Args:
        model: in eval mode.
        images: in [0, 1], on any device.
        threat: neighbours are drawn from its ball, and from one of a quarter of its size.

    Returns:
        None if the model cannot be copied, or a copy fails.
    """
    device = device_of(model, images)
    some, keys = _some(images, device, seed)
    neighbours = torch.where(
        (torch.arange(len(some), device=device) % 2 == 0)[:, None, None, None],
        threat.random_start(some, keys),
        threat.with_eps(threat.eps / 4).random_start(some, keys),
    )
    options = {"keys": keys} if getattr(model, "takes_keys", False) else {}

    precision = outputs.precision_of(model) or torch.float32

    def last_logits(*queries: Tensor) -> Tensor:
        """A new copy's logits for the last of these queries."""
        own = copy.deepcopy(model)
        for query in queries:
            with torch.no_grad(), seeded(seed, device):
                last: Tensor = outputs.unwrapped(own(query.clone().to(precision), **options))
        return functional.pad(last.float(), (0, 1))  # a binary classifier may return one column

    try:
        alone = last_logits(neighbours)
        return differ(alone, last_logits(some, neighbours)) and not differ(alone, last_logits(neighbours, neighbours))
    except Exception:  # a user's model may be impossible to copy, or return anything
        return None


def _some(images: Tensor, device: torch.device, seed: int) -> tuple[Tensor, Tensor]:
    """A few of the images, and their keys."""
    rows = torch.linspace(0, len(images) - 1, min(len(images), IMAGES)).long()
    return images[rows.to(images.device)].to(device, torch.float32), example_keys(seed, rows.to(device))


def _gives_probabilities(model: nn.Module, images: Float[Tensor, "n c h w"]) -> bool:
    """Whether outputs are rows of probabilities; False if the model fails. A copy is queried, if there can be one."""
    device = device_of(model, images)
    some, keys = _some(images, device, 0)
    with suppress(Exception), torch.no_grad(), seeded(0, device):  # the evaluation reports what fails
        own = model
        with suppress(Exception):
            own = copy.deepcopy(model)
        return outputs.sum_to_one(outputs.View(own).outputs(some.clone(), keys))
    return False


def most_queries(n: int) -> int:
    """Images that :func:`adapted` queries at most if n are given."""
    return 6 * min(n, IMAGES)


def adapted(model: nn.Module, images: Float[Tensor, "n c h w"], threat: Threat) -> nn.Module:
    """The model as it is attacked; a view of it, with a warning, if it is stateful or returns probabilities.

    A stateful model becomes :class:`FreshCopies`, probabilities become
    :class:`isthmus.models.outputs.LogProbabilities`.
    """
    with preserve_state(model, device_of(model, images), 0):
        if is_stateful(model, images, threat):
            warnings.warn(
                "The model is stateful: its predictions depend on earlier queries (a cache, or learning at test "
                "time?). Every query goes to a fresh copy of it.",
                stacklevel=3,
            )
            model = FreshCopies(model)
        if _gives_probabilities(model, images):
            warnings.warn(
                "The model returns probabilities; attacks take their logarithms as logits. Return the logits, without "
                "softmax, since probabilities that round to 0 or 1 have no gradient.",
                stacklevel=3,
            )
            model = outputs.LogProbabilities(model)
    return model
