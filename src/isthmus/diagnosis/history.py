"""Does an answer depend on what the model was asked before? Then what attacks see is what it said to clean images.

The question is asked of copies, before the model is asked anything (:mod:`isthmus.attacks.engine.memory`); a model that
remembers is judged by a fresh copy at every pass, here and in all other checks.
"""

from __future__ import annotations

from isthmus.core.types import Status
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.finding import Finding


def examine(suspect: DiagnosisContext) -> Finding:
    """What was found out about copies of the model."""
    if suspect.remembers is None:
        return Finding(
            test="history",
            status=Status.SKIPPED,
            reason="The model cannot be copied, so that no copy can be asked whether answers depend on earlier ones",
        )
    if suspect.remembers:
        return Finding(
            test="history",
            status=Status.FAIL,
            reason="Answers depend on what the model was asked before (a cache, or learning from its input?); every "
            "image is judged by a fresh copy",
        )
    return Finding(test="history", status=Status.PASS, reason="An answer does not depend on what was asked before")
