"""Running a study by its name: what ``isthmus study`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus import provenance
from isthmus.config import override, parse_overrides, validate
from isthmus.errors import ConfigError, unknown
from isthmus.studies import catalogue, page
from isthmus.studies.study import SCALES, Scale, StudyConfig, StudyRecord, departures
from isthmus.studies.workbench import Workbench


def run_study(
    name: str,
    scale: str = "small",
    overrides: Sequence[str] | Mapping[str, Any] = (),
    out: str | Path = "runs/studies",
    show_progress: bool = True,
) -> tuple[StudyRecord, Path]:
    """Run a study, or finish one that was interrupted, and write its page.

    Args:
        name: such as "closer-look/figure-1".
        scale: "tiny", "small" or "paper".
        overrides: ``["seeds=2"]`` or ``{"seeds": 2}``, on top of the scale's preset.
        out: folder of all studies, their trained models and measurements.
        show_progress: say on stderr what is being done, where that is a terminal.

    Returns:
        The record with its findings, and the page's path; the record's JSON lies beside it.

    Raises:
        ConfigError: an unknown study, scale or option.
        DataError, FileError, ModelError: as in training and attacking.
    """
    module, chosen = catalogue.find(name), _scale(scale)
    settings = dict(overrides) if isinstance(overrides, Mapping) else parse_overrides(overrides)
    preset: StudyConfig = module.SCALES[chosen]
    config = validate(module.Config, override(preset.model_dump(), settings), where=f"study {name}")
    record = StudyRecord(
        study=name,
        scale=chosen,
        overrides=settings,
        config=config.plain(),
        departures=departures(config, module.SCALES["paper"]),
        provenance=provenance.collect(),
    )
    path = Path(out) / name / f"{chosen}.json"
    bench = Workbench(Path(out), record, path, show_progress)
    module.run(config, bench)
    done = bench.record.model_copy(update={"findings": tuple(module.findings(bench.record))})
    done.save(path)
    return done, page.write(path, path.with_suffix(".html"))


def _scale(given: str) -> Scale:
    for scale in SCALES:
        if given == scale:
            return scale
    raise ConfigError(unknown("scale", given, SCALES))
