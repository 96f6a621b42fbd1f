"""The export formats by name, and writing them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isthmus.core import files
from isthmus.core.errors import ConfigError, unknown
from isthmus.report.loading import AuditedModel
from isthmus.report.thresholds import Judged


@dataclass(frozen=True)
class Format:
    """A format: its usual file name, and the module and function that return the file's bytes."""

    file: str
    module: str
    function: str = "render"


FORMATS = {
    "cyclonedx": Format("audit.cdx.json", "cyclonedx"),
    "examples": Format("examples.parquet", "parquet", "examples"),
    "huggingface": Format("model-card.md", "huggingface"),
    "json": Format("audit.json", "json_document"),
    "junit": Format("audit.xml", "junit"),
    "latex": Format("audit.tex", "latex"),
    "markdown": Format("summary.md", "markdown"),
    "parquet": Format("metrics.parquet", "parquet"),
    "report": Format("report.md", "iso17025"),
    "sarif": Format("audit.sarif", "sarif"),
}


def render(name: str, models: Sequence[AuditedModel], judged: Sequence[Judged] = ()) -> bytes:
    """Audited models in a format.

    Args:
        name: a key of :data:`FORMATS`.
        judged: accuracies with their thresholds, for the formats that state outcomes.

    Raises:
        ConfigError: an unknown format, or one that needs a package that is not installed.
    """
    if name not in FORMATS:
        raise ConfigError(unknown("format", name, FORMATS))
    module = importlib.import_module(f"isthmus.report.exports.{FORMATS[name].module}")
    content: bytes = getattr(module, FORMATS[name].function)(models, judged)
    return content


def write(
    names: Sequence[str], models: Sequence[AuditedModel], folder: Path, judged: Sequence[Judged] = ()
) -> list[Path]:
    """Write one file for each format into a folder, all or none if a format cannot be rendered.

    Raises:
        ConfigError: see :func:`render`.
        FileError: a file cannot be written.
    """
    rendered = {folder / FORMATS[name].file: content for name in names if (content := render(name, models, judged))}
    for path, content in rendered.items():
        files.write_bytes(path, content)
    return list(rendered)
