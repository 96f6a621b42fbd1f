"""How far an evaluation is, as its file says; believed only where it hangs together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from isthmus.attacks.attack import Stage
from isthmus.attacks.engine.context import EvaluationContext
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.result import CLEAN
from isthmus.attacks.result_file import Count
from isthmus.core.errors import FileError
from isthmus.core.types import Record


class SavedProgress(Record):
    """What stands beside the state.

    Attributes:
        facts: what makes the evaluation another than one that a file may hold.
        labels: of the stages, in order; the first is the clean images.
        at: attacks that are over.
        members: rows that the present one is tried on; None between two attacks.
        passes: forward and backward, all in all.
        spent: example-passes of each stage.
        random: whether it goes by the rule for random models.
        verified: whether what was found was checked at the end; ``verification_passes``: what that took;
            ``unconfirmed``: how many examples it did not confirm.
    """

    facts: dict[str, Any]
    labels: list[str]
    at: Count
    members: list[Count] | None
    passes: tuple[Count, Count]
    spent: dict[str, Count]
    random: bool
    verified: bool
    unconfirmed: Count
    verification_passes: Count


def load(
    path: Path, facts: dict[str, Any], context: EvaluationContext, stages: Sequence[Stage]
) -> tuple[EvaluationState, SavedProgress]:
    """Read the file of an evaluation that is about to go on.

    Args:
        facts: of the evaluation that asks, as JSON gives them back.

    Raises:
        FileError: it is damaged, something else, or another evaluation.
    """
    state, text = EvaluationState.load(path)
    try:
        saved = SavedProgress.model_validate_json(text, strict=True)
    except ValidationError:
        raise FileError(f"{path} does not say what evaluation it holds; delete it to begin anew.") from None
    other = [name for name, fact in facts.items() if saved.facts.get(name) != fact]
    if other:
        raise FileError(
            f"{path} holds an evaluation with other {', '.join(other)}; delete it to begin anew, or choose another "
            "path."
        )
    if (
        (saved.random and state.nearest is None)
        or not _whole(state, saved, context)
        or not _of_stages(state, saved, context, stages)
    ):
        raise FileError(f"{path} contradicts itself, so it was not written by isthmus; delete it to begin anew.")
    return state, saved


def _whole(state: EvaluationState, saved: SavedProgress, context: EvaluationContext) -> bool:
    """Whether it is about these examples, and points at no row or class that is not there."""
    n, classes = len(context.examples), state.ranked.shape[1] + 1
    ranked = bool(((state.ranked >= 0) & (state.ranked < classes)).all())
    members = all(row < n for row in saved.members or ())
    return ranked and members and state.adversarial.shape == context.examples.images.shape


def _of_stages(
    state: EvaluationState, saved: SavedProgress, context: EvaluationContext, stages: Sequence[Stage]
) -> bool:
    """Whether its stages are those of the attacks, and its runs those of the present one."""
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
