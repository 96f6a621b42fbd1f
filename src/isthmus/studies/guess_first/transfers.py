"""Adversarial images made on a substitute, without asking the model that they are meant for.

FGSM and PGD take all their steps on every image, whether or not the substitute falls earlier. C&W's perturbation is
scaled to a given length: just across the substitute's own boundary it would hardly transfer, and the paper does not say
what was done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.evaluation import Snapshot
from isthmus.attacks.engine.rows import per_image
from isthmus.attacks.foolbox_protocol import STEP_SHARE
from isthmus.attacks.minimal_norm import minimal_norms
from isthmus.attacks.threats import Linf
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.core.randomness import example_keys
from isthmus.studies.old.laboratory import Subject
from isthmus.studies.store import Tell

BATCH = 500
Made = Iterator[Float[Tensor, "n c h w"]]
"""Images at one size after another, on the CPU."""
_Look = Callable[[Tensor, Batch], Tensor]


def one_step(source: nn.Module, subject: Subject, grid: Sequence[float]) -> Made:
    """FGSM on the source's cross-entropy at each ε in ℓ∞; one gradient serves them all."""
    signs = _in_batches(source, subject, lambda look, batch: look(batch.images, batch).sign())
    return ((subject.images + eps * signs).clamp(0, 1) for eps in grid)


def many_steps(source: nn.Module, subject: Subject, grid: Sequence[float], steps: int, tell: Tell) -> Made:
    """PGD on the source's cross-entropy: ``steps`` signs of ε/30, from a random start in each ℓ∞ ball."""
    for number, eps in enumerate(grid):
        threat = Linf(eps)

        def ascend(look: _Look, batch: Batch, threat: Linf = threat) -> Tensor:
            x = threat.random_start(batch.images, batch.keys)
            for _ in range(steps):
                x = threat.project(threat.step(x, look(x, batch), STEP_SHARE * threat.eps), batch.images)
            return x

        tell(number, len(grid))
        yield _in_batches(source, subject, ascend)


def scaled(source: nn.Module, subject: Subject, grid: Sequence[float], cw: Mapping[str, Any], tell: Tell) -> Made:
    """C&W on the source, its perturbations scaled to each length in ℓ2."""
    deltas = smallest(source, subject, cw, tell)
    return (rescaled(subject.images, deltas, eps) for eps in grid)


def smallest(source: nn.Module, subject: Subject, cw: Mapping[str, Any], tell: Tell) -> Float[Tensor, "n c h w"]:
    """C&W's perturbation of each image; 0 where the source is wrong without one, or C&W found none.

    Args:
        cw: options of :mod:`isthmus.attacks.cw`.
    """

    def progress(at: Snapshot) -> None:
        tell(at.done, at.total)

    found = minimal_norms(
        source,
        subject.images,
        subject.labels,
        "l2",
        [{"name": "cw", **cw}],
        indices=subject.indices,
        progress=progress,
    )
    return found.adversarial - subject.images


def rescaled(
    images: Float[Tensor, "n c h w"], deltas: Float[Tensor, "n c h w"], eps: float
) -> Float[Tensor, "n c h w"]:
    """Images moved by ‖δ‖₂ = ε along each perturbation and clipped to the box; those without one stay."""
    lengths = deltas.flatten(1).norm(dim=1)
    return (images + deltas * per_image(eps / lengths.where(lengths > 0, 1.0), deltas)).clamp(0, 1)


def _in_batches(source: nn.Module, subject: Subject, work: Callable[[_Look, Batch], Tensor]) -> Tensor:
    """Work through a subject's images on the source's device; ``look`` gives the gradient of the cross-entropy."""
    device, oracle = device_of(source, subject.images), CountedModel(source)
    keys: Int[Tensor, " n"] = example_keys(0, subject.indices)

    def look(x: Tensor, batch: Batch) -> Tensor:
        return oracle.query(x, batch.keys, lambda logits: batch.ascend("ce", logits)).gradient

    with preserve_state(source, device, seed=0):
        parts = [
            work(look, Batch(*(each.to(device) for each in some))).cpu()
            for some in zip(*(torch.split(each, BATCH) for each in (subject.images, subject.labels, keys)), strict=True)
        ]
    return torch.cat(parts)
