"""The result of an audit: its verdict, its numbers, and its page."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.core import files
from isthmus.core.errors import ConfigError
from isthmus.core.results import AuditRecord
from isthmus.core.types import CheckResult
from isthmus.diagnosis.verdict import Verdict
from isthmus.report import page
from isthmus.report.loading import AuditedModel


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        record: the inputs and settings of the audit.
        results: a :class:`isthmus.core.types.CheckResult` for every check, by name.
    """

    record: AuditRecord
    results: dict[str, CheckResult]

    @property
    def verdict(self) -> Verdict:
        """Whether the robust accuracy is genuine, as the check ``diagnosis`` found.

        Raises:
            ConfigError: this audit was made without that check, or the check ended with an error.
        """
        result = self.results.get("diagnosis")
        if result is None or "verdict" not in result.details:
            cause = f" It ended with an error: {result.reason}" if result is not None else ""
            raise ConfigError(f'This audit has no verdict; the check "diagnosis" gives it.{cause}')
        return Verdict.model_validate(result.details["verdict"])

    def rows(self) -> list[dict[str, Any]]:
        """Tidy rows of all metrics: model, check, name, coordinates, value, unit, n, interval and note."""
        return [
            {"model": self.record.model, "check": check, **row}
            for check, result in self.results.items()
            for row in result.metrics.rows()
        ]

    def to_dataframe(self) -> Any:
        """The :meth:`rows` as a pandas DataFrame.

        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            raise ConfigError("to_dataframe needs pandas: pip install pandas. Without it, use rows().") from None
        return pandas.DataFrame(self.rows())

    def save(self, path: str | Path) -> Path:
        """Write the page of this audit, one self-contained HTML file."""
        target = Path(path)
        model = AuditedModel(self.record.model, None, self.record.provenance, self.record, self.results)
        files.write_bytes(target, page.render([model]).encode())
        return target
