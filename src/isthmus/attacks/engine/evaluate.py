"""The engine under every attack: it hands out survivors, judges proposals itself, and keeps the proof.

An attack only proposes. Whatever it proposes is clipped into ball and box where it is not inside already,
judged again in float32 by a fresh forward pass, and counted as broken only if it is inside and misclassified.
So an attack can be weak or wrong, but it cannot lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from isthmus.attacks.attack import Stage
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import BudgetExhausted
from isthmus.attacks.engine.evaluation import Evaluation
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.result import RobustResult
from isthmus.attacks.threats import Threat
from isthmus.core.preserve_state import device_of, preserve_state


def evaluate(
    model: nn.Module,
    examples: Batch,
    threat: Threat,
    stages: Sequence[Stage],
    *,
    seed: int = 0,
    options: RunOptions = RunOptions(),
    known: RobustResult | None = None,
) -> RobustResult:
    """Run attacks one after another, each on what the ones before it left standing.

    :func:`isthmus.attacks.robust_accuracy` is the same with checked, friendlier arguments.

    Args:
        model: images to logits; judged in eval mode, and left exactly as it was.
        examples: images float32 in [0, 1], with labels and keys; see :func:`isthmus.attacks.engine.inputs.examples`.
        seed: of the global generators, for models that draw noise of their own; examples bring their keys.
        known: a result for the same model, examples and seed at a smaller ε or with fewer attacks. What it
            decided stays decided, without another pass.

    Raises:
        ModelError: the model fails, returns something other than N×K logits, has no gradient where an attack
            needs one, or gives no finite logits for any image.
        DataError: a label or target is not one of the model's classes.
        ConfigError: an attack returned something other than one image per example.
        FileError: the file to save to holds another evaluation.
        Interrupted: Ctrl-C; carries the result so far.
        BudgetExhausted: the passes or the time of ``options`` do not cover the clean images. Where they end later, the
            result is what was known by then, and not ``complete``.
    """
    with preserve_state(model, device_of(model, examples.images), seed):
        evaluation = Evaluation(model, examples, threat, stages, seed, options)
        try:
            evaluation.init(known)
            evaluation.run()
        except KeyboardInterrupt:
            if not evaluation.looked:
                raise
            raise Interrupted(evaluation.interrupted()) from None
        except BudgetExhausted as spent:
            if not evaluation.looked:
                counted_model = evaluation.context.counted_model
                spent.forwards, spent.backwards = counted_model.forward_passes, counted_model.backward_passes
                raise
            return replace(evaluation.interrupted(), exhausted=True)
        return evaluation.result()


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during an evaluation. ``result`` is what was known by then: a valid upper bound on robust accuracy."""

    def __init__(self, result: RobustResult) -> None:
        super().__init__("interrupted; .result holds what was found so far")
        self.result = result
