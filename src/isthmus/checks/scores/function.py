"""``module:function``: a score that a function of your own computes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from isthmus.checks.scores.score import Batch, Floats, OODScore, Scoring, Training
from isthmus.core import registry
from isthmus.core.errors import ConfigError, ModelError, one_line
from isthmus.core.preserve_state import no_exit


class ScoreFunction(OODScore):
    """What ``function(model, images)`` returns: one number per image, larger for more out-of-distribution images.

    The model is in eval mode, and gradients are off (``torch.enable_grad()`` turns them on). For a score that is fitted
    on training images, subclass :class:`~isthmus.checks.scores.score.OODScore` and name it ``module:Name``.

    Attributes:
        path: ``module:function``. The current folder is importable.
    """

    argument: ClassVar[str | None] = "path"
    name: Literal["function"] = "function"
    path: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]

    def fit(self, training: Training | None) -> Scoring:
        """Import the function.

        Raises:
            ConfigError: there is no such function.
        """
        module, _, name = self.path.partition(":")
        function = getattr(registry.import_module(module), name, None)
        if not callable(function):
            raise ConfigError(f"{module} has no function {name!r}; give the score as module:function.")

        def score(batch: Batch) -> Floats:
            try:
                with no_exit():
                    found = function(batch.model, batch.images.clone())
                    numbers = found.detach().cpu().numpy() if isinstance(found, Tensor) else np.asarray(found)
                    values = numbers.astype(np.float64)
            except Exception as error:
                raise ModelError(f"{self.path} failed: {one_line(error)} ({type(error).__name__}).") from error
            if values.shape != (len(batch.images),):
                raise ModelError(
                    f"{self.path} returned numbers of shape {values.shape} for {len(batch.images)} images; return one "
                    "number per image."
                )
            return values

        return score
