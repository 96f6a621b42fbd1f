"""One-shot adaptation: copies of a classifier, each moved a few steps by one example of every class."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from isthmus.core.errors import one_line

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor, nn

    from isthmus.checks.context import Context
    from isthmus.checks.dataset_transfer import Config


def one_of_each(labels: Int[Tensor, " m"], draw: int, seed: int) -> Int[Tensor, " k"]:
    """Positions of one example of each class that there is, by ascending class, at random for each draw."""
    import torch

    from isthmus.core.randomness import example_keys, fold, uniform

    classes = labels.bincount().nonzero().squeeze(1)
    shares = uniform(fold(example_keys(seed, classes), "one_shot/example", draw), (1,)).squeeze(1)
    positions = []
    for label, share in zip(classes.tolist(), shares.tolist(), strict=True):
        own = (labels == label).nonzero().squeeze(1)
        positions.append(own[int(share * len(own))])
    return torch.stack(positions)


def obstacle(context: Context) -> str:
    """Why a classifier cannot be adapted; "" where it can."""
    import torch

    model = context.model
    if context.draws > 1:
        return "it answers at random, and only the average of its answers is judged"
    try:
        twin = _twin(model)
        with torch.enable_grad():
            logits = twin(context.images[:2])
    except Exception as error:  # somebody else's module may be impossible to copy, or to train, in any way
        return f"it cannot be copied ({one_line(error)})"
    return "" if logits.requires_grad else "its logits do not depend on parameters that could be fitted"


def _twin(model: nn.Module) -> nn.Module:
    """A copy whose parameters ask for gradients, but for those that a loss of ours must not move."""
    from isthmus.models.learner import Learner

    twin = copy.deepcopy(model)
    beside = {id(parameter) for parameter in twin.fitted_beside()} if isinstance(twin, Learner) else set()
    for parameter in twin.parameters():
        parameter.requires_grad_(parameter.is_floating_point() and id(parameter) not in beside)
    return twin


def adapt(
    context: Context, images: Float[Tensor, "k c h w"], labels: Int[Tensor, " k"], draw: int, config: Config
) -> nn.Module:
    """A copy of the audited model after ``config.steps`` steps of plain SGD on all of these images at once.

    At every step each image is turned by an angle of its own, at most ``config.degrees``. The copy stays in eval mode:
    ten images are no batch to normalise by. Models of ours follow their own loss, others the cross-entropy.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from isthmus.core.randomness import example_keys, fold, uniform
    from isthmus.models.learner import Learner

    twin, device = _twin(context.model), context.images.device
    optimizer = torch.optim.SGD([p for p in twin.parameters() if p.requires_grad], lr=config.learning_rate)
    images, labels = images.to(device), labels.to(device)
    keys = fold(example_keys(context.seed, labels), "one_shot/adaptation", draw)
    noise = torch.Generator(device).manual_seed(int(fold(keys[:1], "one_shot/noise")) & 0x7FFFFFFF)
    with torch.enable_grad():
        for step in range(config.steps):
            angles = (2 * uniform(fold(keys, "one_shot/angle", step), (1,)).squeeze(1) - 1) * config.degrees
            turned = rotated(images, angles)
            optimizer.zero_grad()
            if isinstance(twin, Learner):
                loss = twin.loss(turned, labels, noise=noise).total
            else:
                loss = cross_entropy(twin(turned), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return twin.requires_grad_(False)


def rotated(images: Float[Tensor, "k c h w"], degrees: Float[Tensor, " k"]) -> Float[Tensor, "k c h w"]:
    """Each image counter-clockwise around its middle, bilinear; beyond the border the border goes on."""
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    turn = torch.deg2rad(degrees.to(images.dtype))
    height, width = images.shape[2:]
    cosine, sine, none = turn.cos(), turn.sin(), torch.zeros_like(turn)
    # affine_grid measures either side of the image as 2, so that a side's length stands between the two axes
    rows = [cosine, -sine * height / width, none, sine * width / height, cosine, none]
    matrix = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = affine_grid(matrix, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
