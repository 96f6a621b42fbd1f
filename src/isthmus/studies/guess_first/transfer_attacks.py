"""Adversarial images made on a substitute, without calls of the model that they are meant for.

FGSM and PGD take all their steps on every image, even after the substitute is fooled. C&W's perturbation is scaled to a
given length: one that ends just across the substitute's own boundary would hardly transfer. The paper does not describe
this step.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
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
Images = Float[Tensor, "n c h w"]


def images(config: CurvesConfig, substitute: TrainedModel, attack: Attack, tell: Tell) -> Iterator[Images]:
    """Images that an attack makes on the substitute at one perturbation size after another, on the CPU."""
    source, data, grid = substitute.modes["mean"], substitute.data, config.sizes(attack)
    if attack == "cw":
        deltas = _smallest(source, data, config.cw, tell)
        yield from (rescaled(data.images, deltas, eps) for eps in grid)
        return
    for number, eps in enumerate(grid):
        tell(number, len(grid))
        yield _stepped(source, data, Linf(eps), config.transfer_steps if attack == "pgd" else None)


def _stepped(source: nn.Module, data: EvaluationImages, threat: Linf, steps: int | None) -> Images:
    """Sign steps on the source's cross-entropy, in batches.

    PGD takes ``steps`` of ε/30 from a random start in the ball; FGSM (``steps`` is None) one of ε from the image.
    """
    device, counted, parts = device_of(source, data.images), CountedModel(source), []
    size = threat.eps if steps is None else STEP_SHARE * threat.eps
    whole = (data.images, data.labels, example_keys(0, data.indices))

    def gradient(x: Tensor, batch: Batch) -> Tensor:
        return counted.query(x, batch.keys, lambda logits: batch.ascend("ce", logits)).gradient

    with preserve_state(source, device, seed=0):
        for some in zip(*(torch.split(each, _BATCH) for each in whole), strict=True):
            batch = Batch(*(each.to(device) for each in some))
            x = batch.images if steps is None else threat.random_start(batch.images, batch.keys)
            for _ in range(steps or 1):
                x = threat.project(threat.step(x, gradient(x, batch), size), batch.images)
            parts.append(x.cpu())
    return torch.cat(parts)


def _smallest(source: nn.Module, data: EvaluationImages, cw: CarliniWagner, tell: Tell) -> Images:
    """C&W's perturbation of each image; 0 if the source is wrong without one, or C&W found none."""

    def progress(at: Snapshot) -> None:
        tell(at.done, at.total)

    attack = {"name": "cw", **cw.plain()}
    options = RunOptions(indices=data.indices, progress=progress)
    found = minimal_norms(source, data.images, data.labels, "l2", [attack], options=options)
    return found.adversarial - data.images


def rescaled(images: Images, deltas: Images, eps: float) -> Images:
    """Images moved by ‖δ‖₂ = ε along each perturbation and clipped to the box; those without one stay."""
    lengths = deltas.flatten(1).norm(dim=1)
    return (images + deltas * per_image(eps / lengths.where(lengths > 0, 1.0), deltas)).clamp(0, 1)
