"""Classifiers without gradients: any function of an array of images, and those of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.errors import ModelError

Predict = Callable[[np.ndarray], Any]


class BlackBox(nn.Module):
    """A classifier that is a function of numpy images; it has no gradient, so only score-based attacks apply.

    Args:
        predict: from float32 N×C×H×W in [0, 1] to N×K probabilities or logits.
    """

    def __init__(self, predict: Predict) -> None:
        super().__init__()
        self.predict = predict

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """What the function returns, as a float32 tensor."""
        answer = self.predict(images.detach().cpu().numpy())
        return torch.as_tensor(np.asarray(answer, dtype=np.float32)).to(images.device)

    def extra_repr(self) -> str:
        """The function's name."""
        return getattr(self.predict, "__qualname__", type(self.predict).__name__)


class _Flattened:
    """Scores of a scikit-learn classifier, which takes one row of features per image."""

    def __init__(self, classifier: Any) -> None:
        self.classifier = classifier

    def __call__(self, images: np.ndarray) -> np.ndarray:
        rows = images.reshape(len(images), -1)
        if hasattr(self.classifier, "predict_proba"):
            return np.asarray(self.classifier.predict_proba(rows))
        if hasattr(self.classifier, "decision_function"):
            return np.asarray(self.classifier.decision_function(rows))
        labels = self.classifier.predict(rows)
        return np.asarray(labels[:, None] == self.classifier.classes_[None], dtype=np.float32)


def is_scikit_learn(given: object) -> bool:
    """Whether something looks like a fitted classifier of scikit-learn."""
    return not isinstance(given, nn.Module) and hasattr(given, "predict") and hasattr(given, "classes_")


def black_box(predict: Any) -> BlackBox:
    """A classifier that isthmus can query but not look into, as a module.

    Gradient-based attacks do not apply to it. Attacks on its scores do: ``square``, and with them the suite
    ``standard`` and the diagnosis; a robust accuracy that they leave says less than one that gradients leave.

    Args:
        predict: a function from a float32 array N×C×H×W in [0, 1] to N×K probabilities or logits; or a fitted
            classifier of scikit-learn, whose classes are 0 to K−1, and which takes the flattened images.

    Raises:
        ModelError: neither; or scikit-learn's classes are not 0 to K−1.
    """
    if is_scikit_learn(predict):
        classes = list(predict.classes_)
        if classes != list(range(len(classes))):
            raise ModelError(
                f"The classifier's classes are {classes[:5]}{'...' if len(classes) > 5 else ''}; labels here are 0 to "
                f"{len(classes) - 1}. Fit it to such labels (sklearn.preprocessing.LabelEncoder)."
            )
        return BlackBox(_Flattened(predict))
    if isinstance(predict, nn.Module):
        raise ModelError("A module needs no black box: give it as it is.")
    if not callable(predict):
        raise ModelError(
            f"A black box is a function from images to scores, or a fitted scikit-learn classifier; got {predict!r}."
        )
    return BlackBox(predict)
