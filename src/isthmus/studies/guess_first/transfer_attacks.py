"""Adversarial images made on a substitute, without calls of the model that they are meant for.

FGSM and PGD take all their steps on every image, even after the substitute is fooled. C&W's perturbation is scaled to a
given length: just across the substitute's own boundary it would hardly transfer, and the paper does not say what was
done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.attacks.engine.batch import Batch, per_image
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.run_options import RunOptions, Snapshot
from isthmus.attacks.foolbox_protocol import STEP_SHARE
from isthmus.attacks.minimal_norm import minimal_norms
from isthmus.attacks.threats import Linf
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.core.randomness import example_keys
from isthmus.studies.guess_first.configs import Attack, CarliniWagner, CurvesConfig
from isthmus.studies.store import Tell
from isthmus.studies.trained_models import EvaluationImages, TrainedModel

_BATCH = 500
Images = Iterator[Float[Tensor, "n c h w"]]
"""Images at one perturbation size after another, on the CPU."""
_Gradient = Callable[[Tensor, Batch], Tensor]


def images(config: CurvesConfig, substitute: TrainedModel, attack: Attack, tell: Tell) -> Images:
    """Images that an attack makes on the substitute at each of its perturbation sizes."""
    source, data, grid = substitute.modes["mean"], substitute.data, config.sizes(attack)
    if attack == "fgsm":
        return _one_step(source, data, grid)
    if attack == "pgd":
        return _many_steps(source, data, grid, config.transfer_steps, tell)
    deltas = _smallest(source, data, config.cw, tell)
    return (rescaled(data.images, deltas, eps) for eps in grid)


def _one_step(source: nn.Module, data: EvaluationImages, grid: Sequence[float]) -> Images:
    """FGSM on the source's cross-entropy; one gradient serves every ε."""
    signs = _in_batches(source, data, lambda gradient, batch: gradient(batch.images, batch).sign())
    return ((data.images + eps * signs).clamp(0, 1) for eps in grid)


def _many_steps(source: nn.Module, data: EvaluationImages, grid: Sequence[float], steps: int, tell: Tell) -> Images:
    """PGD on the source's cross-entropy: ``steps`` signs of ε/30, from a random start in each ℓ∞ ball."""
    for number, eps in enumerate(grid):
        threat = Linf(eps)

        def ascend(gradient: _Gradient, batch: Batch, threat: Linf = threat) -> Tensor:
            x = threat.random_start(batch.images, batch.keys)
            for _ in range(steps):
                x = threat.project(threat.step(x, gradient(x, batch), STEP_SHARE * threat.eps), batch.images)
            return x

        tell(number, len(grid))
        yield _in_batches(source, data, ascend)


def _smallest(source: nn.Module, data: EvaluationImages, cw: CarliniWagner, tell: Tell) -> Float[Tensor, "n c h w"]:
    """C&W's perturbation of each image; 0 if the source is wrong without one, or C&W found none."""

    def progress(at: Snapshot) -> None:
        tell(at.done, at.total)

    attack = {"name": "cw", **cw.plain()}
    found = minimal_norms(
        source, data.images, data.labels, "l2", [attack], options=RunOptions(indices=data.indices, progress=progress)
    )
    return found.adversarial - data.images


def rescaled(
    images: Float[Tensor, "n c h w"], deltas: Float[Tensor, "n c h w"], eps: float
) -> Float[Tensor, "n c h w"]:
    """Images moved by ‖δ‖₂ = ε along each perturbation and clipped to the box; those without one stay."""
    lengths = deltas.flatten(1).norm(dim=1)
    return (images + deltas * per_image(eps / lengths.where(lengths > 0, 1.0), deltas)).clamp(0, 1)


def _in_batches(source: nn.Module, data: EvaluationImages, work: Callable[[_Gradient, Batch], Tensor]) -> Tensor:
    """Apply ``work`` to batches on the source's device; it gets a function for the gradient of the cross-entropy."""
    device, counted = device_of(source, data.images), CountedModel(source)
    keys: Int[Tensor, " n"] = example_keys(0, data.indices)

    def gradient(x: Tensor, batch: Batch) -> Tensor:
        return counted.query(x, batch.keys, lambda logits: batch.ascend("ce", logits)).gradient

    with preserve_state(source, device, seed=0):
        parts = [
            work(gradient, Batch(*(each.to(device) for each in some))).cpu()
            for some in zip(*(torch.split(each, _BATCH) for each in (data.images, data.labels, keys)), strict=True)
        ]
    return torch.cat(parts)
