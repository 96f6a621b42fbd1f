"""The statuses of checks in words."""

from __future__ import annotations

from isthmus.core.types import Status

WORDS = {
    Status.MEASURED: "measured",
    Status.PASS: "pass",
    Status.WARN: "warning",
    Status.FAIL: "fail",
    Status.SKIPPED: "skipped",
    Status.ERROR: "error",
}

OUTCOMES = {
    Status.MEASURED: "{} measured",
    Status.PASS: "passed",
    Status.WARN: "gave a warning",
    Status.FAIL: "failed",
    Status.SKIPPED: "{} skipped",
    Status.ERROR: "ended with an error",
}
