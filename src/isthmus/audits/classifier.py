"""The contract of a classifier, and adopting anybody's model into it."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.attacks.engine import memory, rounding
from isthmus.attacks.engine.inputs import check_model
from isthmus.attacks.threats import Threat
from isthmus.core import files, randomness
from isthmus.core.errors import IsthmusError, ModelError, out_of_memory
from isthmus.models import outputs
from isthmus.models.bottleneck import Bottleneck
from isthmus.models.modes import AveragedDraws, StochasticMode, seeded

SAMPLES = 12  # codes, or passes, averaged in a stochastic mode, unless the model was trained with more
_PROBED = 8  # images, spread over those that are given
BATCH = 256
"""Of all images, in which each is asked about twice: a model may be random where it is unsure alone."""
_MANY = 64  # of them, to tell what kind of answers these are
_DRAWS = 8  # passes that have to agree: a model that tosses one coin a pass is missed once in 128
_PROJECTIONS = 16

NOT_FINITE = (
    "The model's logits hold NaN or infinities on every clean image that was tried: training diverged, or the weights "
    "are of another model. Check the weights, or train with a smaller learning rate."
)


@dataclass(frozen=True)
class Classifier:
    """A model that has been looked at: it fits the contract, and what kind it is.

    Attributes:
        model: in eval mode, images to logits; the mean mode of a bottleneck. A model that draws noise of its own
            stands here as :class:`isthmus.models.modes.AveragedDraws`.
        bottleneck: the model itself where it has ``encode``, else None.
        stochastic: its stochastic mode, where its codes are random, else None.
        draws: how many passes ``model`` averages, since single ones answer at random; 1 for all other models.
        remembers: whether its answers depend on what it was asked before; then ``model`` asks a fresh copy each time.
            None where that is not known: the model cannot be copied.
        fingerprint: SHA-256 of class name, parameters and buffers.
        structure: SHA-256 of what the model prints as.
    """

    model: nn.Module
    num_classes: int
    bottleneck: Bottleneck | None
    stochastic: nn.Module | None
    draws: int
    remembers: bool | None
    fingerprint: str
    structure: str


def adopt(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    seed: int = 0,
    threat: Threat | None = None,
    batch_size: int = BATCH,
) -> Classifier:
    """Check that a model fits the contract, on a few images, and tell what kind it is.

    Whether it answers at random is asked of all images, since it may be so where it is unsure alone. A model that is
    random away from these images alone is found out by attacks.

    Whether it remembers is asked where a threat is given, before anything else, of copies
    (:func:`isthmus.attacks.engine.memory.remembers`).

    Puts the model into eval mode; global random generators are afterwards as before.

    Raises:
        ModelError: it is no module, cannot take the images, its answer is not N rows of logits, or no row is finite.
    """
    check_model(model)
    with contextlib.suppress(NotImplementedError):  # torch.export's modules keep the mode they were exported in
        model.eval()
    few = _spread(images, min(_PROBED, batch_size))
    remembers = False if threat is None else memory.remembers(model, images, threat, seed)
    given, model = model, _fitted(memory.Fresh(model).eval() if remembers else model, images, seed, batch_size)
    _probe(model, images[:2], seed)  # a batch of another size: a model made for one size alone is seen here
    logits = _probe(model, few, seed)
    if not torch.isfinite(logits).all(1).any():
        raise ModelError(NOT_FINITE)
    ours = model if isinstance(model, Bottleneck) else None
    by_chance = any(rounding.differ(logits, _probe(model, few, seed + draw)) for draw in range(1, _DRAWS)) or any(
        rounding.differ(*(_probe(model, part, seed + draw) for draw in range(2)))
        for part in torch.split(images, batch_size)
    )
    return Classifier(
        model=AveragedDraws(model, SAMPLES, seed).eval() if by_chance else model,
        num_classes=logits.shape[1],
        bottleneck=ours,
        stochastic=StochasticMode(ours, max(ours.samples, SAMPLES), seed).eval()
        if ours is not None and ours.stochastic
        else None,
        draws=SAMPLES if by_chance else 1,
        remembers=remembers,
        fingerprint=fingerprint(given),
        structure=structure(given),
    )


def _spread(images: Tensor, most: int) -> Tensor:
    """Some of the images, from first to last."""
    return images[torch.linspace(0, len(images) - 1, min(len(images), most)).long().to(images.device)]


def _fitted(model: nn.Module, images: Tensor, seed: int, batch_size: int) -> nn.Module:
    """The model, or a view of it that gives finite logits of at least two classes where it gives others."""
    some = _spread(images, min(_MANY, batch_size))
    answer = _answer(model, some, seed)
    if outputs.is_one(answer, len(some)):
        return outputs.TwoColumns(model, probabilities=outputs.are_probabilities(answer)).eval()
    if isinstance(answer, Tensor) and torch.isneginf(answer).any():
        return outputs.Floored(model).eval()
    return model


def _probe(model: nn.Module, images: Tensor, seed: int) -> Tensor:
    """The model's answer, checked."""
    logits = _answer(model, images, seed)
    if not isinstance(logits, Tensor):
        raise ModelError(
            f"The model returned {type(logits).__name__} where a tensor of logits is expected; wrap it in a module "
            "that returns the logits alone."
        )
    if logits.dim() != 2 or logits.shape[0] != images.shape[0] or logits.shape[1] < 2:
        raise ModelError(
            f"The model returned a tensor of shape {tuple(logits.shape)} for {images.shape[0]} images; expected "
            f"({images.shape[0]}, classes), or ({images.shape[0]}, 1) of a binary classifier."
        )
    return logits


def _answer(model: nn.Module, images: Tensor, seed: int) -> Any:
    """Whatever the model says with the global generators at ``seed``."""
    shape = tuple(images.shape[1:])
    # noise from keys is no chance: the same keys give the same answer
    keys = randomness.example_keys(0, torch.arange(len(images), device=images.device))
    options = {"keys": keys} if getattr(model, "takes_keys", False) else {}
    try:
        with torch.no_grad(), seeded(seed, images.device):
            return model(images.clone(), **options)
    except IsthmusError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        fault = " ".join(str(error).split()) or "it gives no reason"
        raise ModelError(f"The model cannot take images of shape {shape}: {fault} ({type(error).__name__})") from error


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of the model's class name and of every parameter and buffer with its name."""
    parts: list[Any] = [type(model).__name__.encode()]
    for name, value in sorted(model.state_dict().items()):
        content = (
            value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            if isinstance(value, Tensor)
            else repr(value).encode()  # a module's extra state may be anything
        )
        parts += [name.encode(), content]
    return files.sha256(*parts)


def structure(model: nn.Module) -> str:
    """SHA-256 of the model's class name and of what it prints as, without addresses in memory: its layers."""
    return files.sha256(type(model).__name__.encode(), re.sub(r" at 0x[0-9a-fA-F]+", "", repr(model)).encode())


def answers(logits: Float[Tensor, "n classes"]) -> tuple[float, ...]:
    """A few numbers that change when a model's answers do, for :func:`same_answers`.

    The size of all logits (root of the mean square of a row), then 16 projections of them on fixed random signs.
    A hash of rounded logits would not do: of ten thousand numbers some always lie so close to where rounding jumps that
    another number of threads moves them across. Logits that are not finite count as 0.
    """
    rows = torch.nan_to_num(logits.detach().cpu().double(), nan=0.0, posinf=0.0, neginf=0.0)
    n, classes = rows.shape
    by_row, by_class = (
        torch.where(randomness.uniform(randomness.example_keys(seed, torch.arange(size)), (_PROJECTIONS,)) < 0.5, -1, 1)
        for seed, size in enumerate((n, classes))
    )
    projected = ((by_row.double().T @ rows) * by_class.double().T).sum(1)
    return tuple((torch.cat([rows.norm().reshape(1), projected]) / n**0.5).tolist())


def same_answers(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    """Whether two results of :func:`answers` differ by no more than rounding: by 1e-4 of the logits' size."""
    if not first or len(first) != len(second):
        return False
    return all(
        abs(a - b) <= rounding.SAME * max(abs(first[0]), abs(second[0])) for a, b in zip(first, second, strict=True)
    )
