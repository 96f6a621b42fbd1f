"""The document that ``--json`` prints, as a file."""

from __future__ import annotations

import json
from collections.abc import Sequence

from isthmus.report.document import document
from isthmus.report.loading import AuditedModel
from isthmus.report.thresholds import Judged


def render(models: Sequence[AuditedModel], judged: Sequence[Judged]) -> bytes:
    """The document, with ``page`` null."""
    return (json.dumps(document(models), allow_nan=False, indent=1) + "\n").encode()
