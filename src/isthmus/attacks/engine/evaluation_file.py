"""The file from which a killed evaluation resumes; accepted only if it belongs to the same evaluation."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from isthmus.attacks.attack import Stage
from isthmus.attacks.engine.context import EvaluationContext
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.result import CLEAN
from isthmus.attacks.result_file import Count
from isthmus.core import files
from isthmus.core.errors import FileError

SAVE_EVERY = 20.0
"""Least number of seconds between two writes of the file."""

_WRITING = 20  # writing takes at most 1/20 of the time


class EvaluationProgress(BaseModel, extra="forbid"):
    """Progress of an evaluation, which its file stores beside the state.

    Attributes:
        facts: what the evaluation consists of; a file with other facts is of another evaluation.
        labels: of the stages, in order; the first is the clean images.
        at: attacks that are over.
        members: rows that the present attack is tried on; None between two attacks.
        passes: forward and backward, in total.
        spent: example-passes of each stage.
        random: whether the model counts as random.
        verified: whether adversarial examples were checked at the end.
        unconfirmed: how many examples that check did not confirm.
        verification_passes: forward passes of that check.
    """

    facts: dict[str, Any]
    labels: list[str]
    at: Count = 0
    members: list[Count] | None = None
    passes: tuple[Count, Count] = (0, 0)
    spent: dict[str, Count]
    random: bool = False
    verified: bool = False
    unconfirmed: Count = 0
    verification_passes: Count = 0

    @classmethod
    def new(cls, facts: dict[str, Any], labels: Iterable[str]) -> EvaluationProgress:
        """The progress of an evaluation that begins."""
        labels = list(labels)
        return cls(facts=facts, labels=labels, spent=dict.fromkeys(labels, 0))


class EvaluationFile:
    """The file of one evaluation.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._saved, self._pause = time.monotonic(), SAVE_EVERY

    @property
    def exists(self) -> bool:
        """Whether there is a file to resume from."""
        return files.exists(self.path)

    @property
    def due(self) -> bool:
        """Whether the last write is long enough ago for another."""
        return time.monotonic() - self._saved > self._pause

    def save(self, state: EvaluationState, progress: EvaluationProgress) -> None:
        """Write the evaluation, atomically.

        Raises:
            FileError: it cannot be written; an older file is left unchanged.
        """
        began = time.monotonic()
        state.save(self.path, json.dumps(progress.model_dump()))
        self._saved = time.monotonic()
        self._pause = max(SAVE_EVERY, _WRITING * (self._saved - began))

    def load(
        self, facts: dict[str, Any], context: EvaluationContext, stages: Sequence[Stage]
    ) -> tuple[EvaluationState, EvaluationProgress]:
        """Read the file of an evaluation that is about to resume.

        Args:
            facts: of this evaluation.

        Raises:
            FileError: it is damaged, something else, or another evaluation.
        """
        state, text = EvaluationState.load(self.path)
        try:
            saved = EvaluationProgress.model_validate_json(text, strict=True)
        except ValidationError:
            raise FileError(f"{self.path} does not say what evaluation it holds; delete it to begin anew.") from None
        facts = json.loads(json.dumps(facts))
        other = [name for name, fact in facts.items() if saved.facts.get(name) != fact]
        if other:
            raise FileError(
                f"{self.path} holds an evaluation with other {', '.join(other)}; delete it to begin anew, or choose "
                "another path."
            )
        nearest = state.nearest is not None or not saved.random
        if not nearest or not _of_examples(state, saved, context) or not _of_stages(state, saved, context, stages):
            raise FileError(
                f"{self.path} contradicts itself, so it was not written by isthmus; delete it to begin anew."
            )
        return state, saved

    def check_examples(self, context: EvaluationContext) -> None:
        """Verify adversarial examples that were loaded: models with equal weights need not be equal.

        Raises:
            FileError: this model classifies one of them correctly.
        """
        state = context.state
        state.settle()
        rows = (state.broken & (state.stage > 0)).nonzero().squeeze(1)
        for part in () if context.counted_model.random else context.batches(rows):
            images = state.adversarial[part].to(context.device)
            if not context.verifier.proposals(images, context.batch(part), state.tries[part]).broken.all():
                raise FileError(
                    f"{self.path} holds an evaluation of a model that answers otherwise, though its weights are these; "
                    "delete it to begin anew, or choose another path."
                )


def _of_examples(state: EvaluationState, saved: EvaluationProgress, context: EvaluationContext) -> bool:
    """Whether the state has these examples, and no row or class out of range."""
    n, classes = len(context.examples), state.ranked.shape[1] + 1
    ranked = bool(((state.ranked >= 0) & (state.ranked < classes)).all())
    members = all(row < n for row in saved.members or ())
    return ranked and members and state.adversarial.shape == context.examples.images.shape


def _of_stages(
    state: EvaluationState, saved: EvaluationProgress, context: EvaluationContext, stages: Sequence[Stage]
) -> bool:
    """Whether the stages are those of the attacks, and the runs those of the present attack."""
    needed = {CLEAN, *(stage.label for stage in stages)}
    if not needed <= set(saved.labels) or set(saved.labels) != set(saved.spent):
        return False
    if not bool(((state.stage >= -1) & (state.stage < len(saved.labels))).all()):
        return False
    if saved.members is None:
        return saved.at <= len(stages)
    if saved.at >= len(stages):
        return False
    runs = stages[saved.at].attack.runs_in(context.threat, state.ranked.shape[1] + 1)
    return state.scores.shape[1] == runs and bool(((state.done >= 0) & (state.done <= runs)).all())


def forget(path: Path) -> None:
    """Delete the file to which :func:`isthmus.attacks.robust_accuracy` saved, and those of its waves."""
    waves = (
        each for each in path.parent.glob(f"{path.name}.*") if each.suffix[1:].isdigit() and each.stem == path.name
    )
    for each in (path, *waves):
        each.unlink(missing_ok=True)
