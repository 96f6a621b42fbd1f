"""A study that is not ported yet, a module, with the interface of :class:`isthmus.studies.study.Study`."""

# ruff: noqa: D102

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from isthmus.core.types import Section
from isthmus.studies.old.study import INCOMPLETE, StudyRecord
from isthmus.studies.verdicts import ClaimResult, Verdict


@dataclass(frozen=True)
class OldStudy:
    """See :class:`isthmus.studies.study.Study`."""

    name: str
    path: str
    question: str

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(self.path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    @property
    def config(self) -> Any:
        return self.module.Config

    def preset(self, scale: str) -> Any:
        return self.module.SCALES[scale]

    def experiments(self, config: Any, store: Any) -> Any:
        return self.module.cells(config, store)

    def record(self, **facts: Any) -> StudyRecord:
        return StudyRecord(study=self.name, **facts)

    def load(self, path: Path) -> StudyRecord:
        return StudyRecord.load(path)

    def judge(self, record: StudyRecord) -> tuple[ClaimResult, ...]:
        try:
            return tuple(self.module.findings(record))
        except INCOMPLETE:
            if not record.failures:
                raise
            reason = f"{len(record.failures)} of {record.total} experiments could not be measured."
            return (ClaimResult(claim="What the paper claims.", verdict=Verdict.UNDECIDED, reason=reason),)

    def section(self, record: StudyRecord) -> Section:
        try:
            section: Section = self.module.section(record)
            return section
        except INCOMPLETE:
            if not record.failures:
                raise
            return Section(record.study, self.question)
