"""Images to look at: the first audited ones, with their adversarial examples and the predictions before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.checks.context import Context

MOST = 24
"""Images in a gallery. They are chosen by position alone, so that all classifiers have the same ones."""


def gallery(
    context: Context,
    mode: str,
    correct: NDArray[np.bool_],
    adversarial: NDArray[np.float32],
    smallest_eps: NDArray[np.float64],
    broken_by: Sequence[str | None] = (),
) -> tuple[list[dict[str, Any]], dict[str, NDArray[np.uint8]]]:
    """The first audited images of one mode, robust and misclassified ones included.

    Args:
        mode: in which the images were attacked, and in which their predictions are.
        correct: bool[n], whether the clean image is classified correctly.
        adversarial: float32[n, c, h, w], NaN where no adversarial example was found. Rows of clean errors are ignored.
        smallest_eps: float[n], the smallest ε at which ``adversarial`` was found.
        broken_by: label of the attack that found each adversarial example, None if unknown; empty if all are.

    Returns:
        A fact for each image, and the arrays ``gallery_original`` and ``gallery_adversarial`` uint8[k, h, w, c],
        rounded to 8 bits for display. A fact has ``index``, ``label``, ``clean_predicted``, and ``clean_confidence``
        in that class. If the image is broken, ``predicted`` and ``confidence`` on the adversarial example, ``eps``,
        ``size``, the norm of the perturbation, and ``attack``; otherwise these are None and the second picture repeats
        the first.
    """
    shown = slice(0, MOST)
    broken = correct[shown] & np.isfinite(adversarial[shown]).all(axis=(1, 2, 3))
    original = context.images[shown].cpu().float()
    changed = torch.where(torch.from_numpy(broken)[:, None, None, None], torch.from_numpy(adversarial[shown]), original)
    before, after = (_confidences(images, context, mode) for images in (original, changed))
    sizes = context.threat.norm(changed - original).tolist()
    facts = [
        {
            "index": i,
            "label": int(context.truth[i]),
            "clean_predicted": before[i][0],
            "clean_confidence": before[i][1],
            "predicted": after[i][0] if broken[i] else None,
            "confidence": after[i][1] if broken[i] else None,
            "eps": float(smallest_eps[i]) if broken[i] else None,
            "size": sizes[i] if broken[i] else None,
            "attack": broken_by[i] if broken[i] and broken_by else None,
        }
        for i in range(len(original))
    ]
    return facts, {"gallery_original": _as_bytes(original), "gallery_adversarial": _as_bytes(changed)}


def _confidences(images: torch.Tensor, context: Context, mode: str) -> list[tuple[int, float]]:
    """The predicted class of each of the first images, and the confidence in it; 0 if not finite."""
    device = context.images.device
    outputs = context.predictions(
        lambda rows: (images[rows].to(device), context.keys[rows.to(device)]), len(images), {mode: context.modes[mode]}
    )
    found = torch.from_numpy(outputs[mode]).softmax(1).nan_to_num(0.0).max(dim=1)
    return list(zip(found.indices.tolist(), found.values.tolist(), strict=True))


def _as_bytes(images: torch.Tensor) -> NDArray[np.uint8]:
    return np.asarray(np.rint(images.numpy() * 255).transpose(0, 2, 3, 1), dtype=np.uint8)
