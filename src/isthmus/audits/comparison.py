"""Compare two audits from Python."""

from __future__ import annotations

from pathlib import Path

from isthmus.audits.result import Audit, audited_model
from isthmus.report import changes
from isthmus.report.changes import AuditComparison


def compare(before: Audit | str | Path, after: Audit | str | Path) -> AuditComparison:
    """Compare two audits on the same images, such as those of a model before and after a change.

    Clean accuracy, corrected robust accuracy, NLL, Brier score and error under corruptions are compared as far as both
    audits have them, in each mode. Differences are paired over the examples: accuracies by Newcombe's method, means by
    the bootstrap. All intervals hold jointly at 95% (Bonferroni). A number is worse if its interval lies entirely on
    the worse side of 0.

    A robust accuracy is an upper bound found by attacks. A difference may also come from attacks that succeed better on
    one of the models.

    Args:
        before, after: results of :func:`isthmus.audit`, or audited run folders.

    Raises:
        ConfigError: the audits are on different images, or have no number in common; a difference of accuracies on
            different images would mix the models with the images.
        FileError: a folder holds no audit.
    """
    return changes.compare(audited_model(before, "before"), audited_model(after, "after"))
