"""The contract of a classifier, and how any model is adapted to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.attacks.engine import probes, rounding
from isthmus.attacks.engine.inputs import check_model
from isthmus.attacks.threats import Threat
from isthmus.audits import side_effects
from isthmus.core import randomness
from isthmus.core.errors import IsthmusError, ModelError, out_of_memory
from isthmus.core.preserve_state import settings
from isthmus.core.types import Caution
from isthmus.diagnosis.model_queries import gives_gradient
from isthmus.models import outputs
from isthmus.models.bottleneck import Bottleneck
from isthmus.models.identity import fingerprint, structure
from isthmus.models.modes import AveragedDraws, StochasticMode, seeded

SAMPLES = 12  # codes, or passes, averaged in a stochastic mode, unless the model was trained with more
_PROBED = 8  # images, evenly spread
BATCH = 256
"""Batch size of the test for random predictions on all images: a model may be random only where it is uncertain."""
_MANY = 64  # images that show the kind of output
_DRAWS = 8  # passes that must agree; a model with one random bit per pass is missed with probability 1/128
_PROJECTIONS = 16

NOT_FINITE = (
    "The model's logits contain NaN or infinities on every clean image: training diverged, or the weights are of "
    "another model. Check the weights, or train with a smaller learning rate."
)


@dataclass(frozen=True)
class Classifier:
    """A model that fits the contract, and its properties.

    Attributes:
        model: in eval mode, images to logits; the mean mode of a bottleneck. A model with random
            predictions is wrapped in :class:`isthmus.models.modes.AveragedDraws`.
        bottleneck: the model itself if it has ``encode``, else None.
        stochastic: its stochastic mode if its codes are random, else None.
        draws: passes that ``model`` averages, if single predictions are random; 1 for all other models.
        stateful: whether predictions depend on earlier calls; then ``model`` calls a fresh copy each time. None if
            unknown, since the model cannot be copied.
        fingerprint: SHA-256 of class name, parameters and buffers.
        structure: SHA-256 of the model's printed form.
        cautions: what is unusual about the model's outputs and behaviour.
    """

    model: nn.Module
    num_classes: int
    bottleneck: Bottleneck | None
    stochastic: nn.Module | None
    draws: int
    stateful: bool | None
    fingerprint: str
    structure: str
    cautions: tuple[Caution, ...] = ()


def adopt(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    seed: int = 0,
    threat: Threat | None = None,
    batch_size: int = BATCH,
) -> Classifier:
    """Check on a few images that a model fits the contract, and find its properties.

    Random predictions are tested on all images, since they may occur only where the model is uncertain. Attacks detect
    a model that is random only away from these images.

    If a threat is given, statefulness is tested first, on copies (:func:`isthmus.attacks.engine.probes.is_stateful`).

    Puts the model into eval mode; global random generators are restored.

    Raises:
        ModelError: it is no module, fails on the images, its output is not N rows of logits, or no row is finite.
    """
    check_model(model)
    before = settings()
    with contextlib.suppress(NotImplementedError):  # torch.export's modules keep the mode they were exported in
        model.eval()
    few = _spread(images, min(_PROBED, batch_size))
    stateful = False if threat is None else probes.is_stateful(model, images, threat, seed)
    given, model = model, _fitted(probes.FreshCopies(model).eval() if stateful else model, images, seed, batch_size)
    _probe(model, images[:2], seed)  # another batch size, to detect a model made for only one
    logits = _probe(model, few, seed)
    if not torch.isfinite(logits).all(1).any():
        raise ModelError(NOT_FINITE)
    bottleneck = model if isinstance(model, Bottleneck) else None
    random = any(rounding.differ(logits, _probe(model, few, seed + draw)) for draw in range(1, _DRAWS)) or any(
        rounding.differ(*(_probe(model, part, seed + draw) for draw in range(2)))
        for part in torch.split(images, batch_size)
    )
    return Classifier(
        model=AveragedDraws(model, SAMPLES, seed).eval() if random else model,
        num_classes=logits.shape[1],
        bottleneck=bottleneck,
        stochastic=StochasticMode(bottleneck, max(bottleneck.samples, SAMPLES), seed).eval()
        if bottleneck is not None and bottleneck.stochastic
        else None,
        draws=SAMPLES if random else 1,
        stateful=stateful,
        fingerprint=fingerprint(given),
        structure=structure(given),
        cautions=(*_remarks(model, few[:2], stateful, random), *side_effects.cautions(model, few, seed, before)),
    )


def _keyed(model: nn.Module) -> bool:
    return bool(getattr(model, "takes_keys", False))


def _remarks(model: nn.Module, few: Tensor, stateful: bool | None, random: bool) -> Iterator[Caution]:
    """What is unusual about the model's answers."""
    keys = randomness.example_keys(0, torch.arange(len(few), device=few.device)) if _keyed(model) else None
    with seeded(0, few.device):
        differentiable = gives_gradient(model, few, keys)
    if not differentiable:
        yield Caution(
            about="gradient",
            level="warning",
            text="The logits have no gradient with respect to the images (a detach(), no_grad(), numpy, or a "
            "service?). Attacks search at random, or follow the forward pass where torch computes it; an attacker with "
            "gradients may break more, so the verdict is at best undecided. Let gradients pass.",
        )
    if outputs.given_as_probabilities(model):
        yield Caution(
            about="probabilities",
            level="warning",
            text="The model returns probabilities. Attacks and metrics take their logarithms as logits, which changes "
            "no prediction; but probabilities that round to 0 or 1 have no gradient. Return the logits, without "
            "softmax or sigmoid.",
        )
    if stateful:
        yield Caution(
            about="state",
            level="warning",
            text="The model keeps state between calls: its predictions depend on earlier ones (a cache, or learning at "
            "test time?). Every call goes to a fresh copy of it, so these numbers are those of the model without "
            "memory. Remove the state, or reset it at each call.",
        )
    if random:
        yield Caution(
            about="random",
            level="note",
            text=f"The model's predictions are random: the same images got different logits. Predictions are averages "
            f"over {SAMPLES} draws or more. If that is not meant, look for dropout, noise or random augmentation that "
            "eval mode leaves on.",
        )


def _spread(images: Tensor, most: int) -> Tensor:
    """Some of the images, evenly spread."""
    return images[torch.linspace(0, len(images) - 1, min(len(images), most)).long().to(images.device)]


def _fitted(model: nn.Module, images: Tensor, seed: int, batch_size: int) -> nn.Module:
    """The model, or a wrapper that gives finite logits of at least two classes."""
    some = _spread(images, min(_MANY, batch_size))
    if outputs.precision_of(model) is not None:
        model = outputs.Plain(model).eval()
    answer = _answer(model, some, seed)
    if not isinstance(answer, Tensor) and isinstance(outputs.unwrapped(answer), Tensor):
        model, answer = outputs.Plain(model).eval(), outputs.unwrapped(answer)
    if outputs.is_one(answer, len(some)):
        if not answer.is_floating_point():
            raise ModelError(
                f"The model returned {answer.dtype} of shape {tuple(answer.shape)} for {len(some)} images, class "
                "indices rather than logits; return the logits before argmax."
            )
        if outputs.are_probabilities(answer):
            return outputs.LogProbabilities(outputs.TwoColumns(model, probabilities=True)).eval()
        return outputs.TwoColumns(model).eval()
    if outputs.sum_to_one(answer):
        return outputs.LogProbabilities(model).eval()
    if isinstance(answer, Tensor) and torch.isneginf(answer).any():
        return outputs.Floored(model).eval()
    return model


def _probe(model: nn.Module, images: Tensor, seed: int) -> Tensor:
    """The model's logits, checked."""
    logits = _answer(model, images, seed)
    if not isinstance(logits, Tensor):
        raise ModelError(
            f"The model returned {type(logits).__name__} instead of a tensor of logits; wrap it in a module "
            "that returns the logits alone."
        )
    if logits.dim() != 2 or logits.shape[0] != images.shape[0] or logits.shape[1] < 2:
        raise ModelError(
            f"The model returned a tensor of shape {tuple(logits.shape)} for {images.shape[0]} images; expected "
            f"({images.shape[0]}, classes), or ({images.shape[0]}, 1) of a binary classifier."
        )
    return logits


def _answer(model: nn.Module, images: Tensor, seed: int) -> Any:
    """The model's output with the global generators at ``seed``."""
    shape = tuple(images.shape[1:])
    # noise from keys is reproducible: the same keys give the same output
    keys = randomness.example_keys(0, torch.arange(len(images), device=images.device))
    options = {"keys": keys} if _keyed(model) else {}
    try:
        with torch.no_grad(), seeded(seed, images.device):
            return model(images.clone(), **options)
    except IsthmusError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        fault = " ".join(str(error).split()) or "no reason given"
        hint = _other_layout(model, images[:2])
        raise ModelError(
            f"The model fails on images of shape {shape}: {fault} ({type(error).__name__}).{hint}"
        ) from error


def _other_layout(model: nn.Module, images: Tensor) -> str:
    """A remedy if the model works on these images in another layout; empty if it does not."""
    channels, last = images.shape[1], images.shape[3]
    if channels == 3:
        other, remedy = images[:, :1], "one channel; a folder of grey images takes the option channels: 1"
    elif channels == 1:
        other, remedy = images.expand(-1, 3, -1, -1), "three channels: images.expand(-1, 3, -1, -1)"
    elif last in (1, 3):
        other, remedy = images.permute(0, 3, 1, 2), "channels before height and width: images.permute(0, 3, 1, 2)"
    else:
        return ""
    with contextlib.suppress(Exception), torch.no_grad(), seeded(0, images.device):
        model(other.clone())
        return f" It works with {remedy}."
    return ""


def answers(logits: Float[Tensor, "n classes"]) -> tuple[float, ...]:
    """A few numbers that change with a model's predictions, for :func:`same_answers`.

    The size of all logits (root of the mean square of a row), then 16 projections of them on fixed random signs.
    A hash of rounded logits would not work: of ten thousand numbers some are so close to a rounding boundary that
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
