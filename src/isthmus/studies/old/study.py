"""What a study is made of, as plain data: its config, and the record of what it measured.

A study's file defines::

    class Config(StudyConfig)            what to measure; the defaults are the paper's
    SCALES = scales(Config, tiny, small) "tiny" (seconds, for tests), "small" (minutes on two cores), "paper"
    cells(config, bench) -> Stages       what there is to measure, in stages whose cells do not wait for one another
    findings(record) -> list[Finding]    the paper's claims, each supported, contradicted or undecided, from the numbers
    section(record) -> Section           the figures, from the numbers, without torch

Only ``cells``, and what its cells call, may import torch. Everything else works from a stored :class:`StudyRecord`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError

from isthmus.core import files
from isthmus.core.config import Frozen
from isthmus.core.errors import FileError
from isthmus.core.types import Record
from isthmus.studies.old.evidence import ClaimResult

Scale = Literal["tiny", "small", "paper"]
SCALES: tuple[Scale, ...] = ("tiny", "small", "paper")
INCOMPLETE = (ValueError, LookupError, ZeroDivisionError)
"""What reading a record may raise that lacks cells."""


def _data(given: object) -> object:
    if isinstance(given, Mapping):
        if not isinstance(given.get("name"), str):
            raise ValueError("give the name of a data set, or a mapping with its name and its options")
        own = sorted({"train_limit", "random_labels", "classes"} & set(given))
        if own:
            raise ValueError(f"{', '.join(own)} of the data are set by the study, by options of its own")
    return given


Data = Annotated[str | dict[str, Any], BeforeValidator(_data)]
"""A data set: its name, or a mapping with the name and options, such as ``{"name": "svhn", "extra": true}``."""


def data_options(data: str | Mapping[str, Any], **own: Any) -> dict[str, Any]:
    """A data set as part of a recipe, with options that the study sets."""
    return {**(dict(data) if isinstance(data, Mapping) else {"name": data}), **own}


def data_name(data: str | Mapping[str, Any]) -> str:
    """The name of a data set, without its options."""
    return data if isinstance(data, str) else str(data["name"])


Beta = Annotated[float, Field(gt=0, lt=1)]
"""A weight of the rate."""


class StudyConfig(Frozen):
    """Base of every study's options; the defaults are the paper's, or our reading where it is silent.

    Attributes:
        departs: options whose default departs from the paper, with what the paper has. Pages list them as departures.
    """

    departs: ClassVar[Mapping[str, Any]] = {}


ConfigT = TypeVar("ConfigT", bound=StudyConfig)


def scales(config: type[ConfigT], tiny: Mapping[str, Any], small: Mapping[str, Any]) -> dict[Scale, ConfigT]:
    """A study's ``SCALES``: what the two smaller ones set, and the defaults, which are the paper's."""
    return {"tiny": config(**tiny), "small": config(**small), "paper": config()}


class StudyRecord(Record):
    """What a study measured so far: all that its page and its findings are made from.

    Attributes:
        study: its name, such as "closer-look/figure-1".
        scale: whose preset the config began from.
        overrides: settings given on top of that, as dotted keys.
        options: further options of the command that makes this record, such as ``--out``; no number depends on them.
        config: all options, resolved.
        departures: options in which this differs from the paper: name -> [here, there].
        cells: name -> what was measured there, plain data.
        total: cells that belong to the study; fewer are there while it runs.
        data: of each data set behind the cells, ``name``, ``fingerprint`` and ``note``, what a reader must know of it;
            empty for toys that are drawn. Records of before 2026-11-30 lack it.
        failures: cells that could not be measured, and why; they belong to the study, too.
        seconds: time spent on the cells, training included.
        findings: empty until everything is measured.
        provenance: versions, commit, machine and date.
    """

    study: str
    scale: Scale
    overrides: dict[str, Any] = Field(default_factory=dict)
    options: tuple[str, ...] = ()
    config: dict[str, Any]
    departures: dict[str, tuple[Any, Any]] = Field(default_factory=dict)
    cells: dict[str, dict[str, Any]] = Field(default_factory=dict)
    data: tuple[dict[str, str], ...] = ()
    total: int = 0
    failures: dict[str, str] = Field(default_factory=dict)
    seconds: float = 0.0
    findings: tuple[ClaimResult, ...] = ()
    provenance: dict[str, Any] = Field(default_factory=dict)

    @property
    def measured(self) -> int:
        """Number of cells that are there."""
        return len(self.cells)

    @property
    def claims(self) -> tuple[ClaimResult, ...]:
        """The findings."""
        return self.findings

    def filled(self, values: Mapping[str, Any], **facts: Any) -> StudyRecord:
        """This record with other cells and facts."""
        facts = {"findings" if name == "claims" else name: fact for name, fact in facts.items()}
        return self.model_copy(update={"cells": dict(values), **facts})

    @property
    def complete(self) -> bool:
        """Whether every cell is there, or has failed."""
        return 0 < self.total == len(self.cells) + len(self.failures)

    @property
    def notes(self) -> list[str]:
        """What a reader of these numbers must know of the data, a sentence for each data set."""
        return list(dict.fromkeys(f"{each['name']}: {each['note']}." for each in self.data if each["note"]))

    @property
    def collapsed(self) -> list[str]:
        """Cells of models that stayed at chance: measured, and kept apart from the others."""
        return [name for name, cell in self.cells.items() if cell.get("collapsed")]

    def each(self, **wanted: Any) -> Iterator[Mapping[str, Any]]:
        """Cells whose facts include these, in the order of measurement: ``record.each(objective="vib", beta=0.1)``."""
        return (cell for cell in self.cells.values() if all(cell.get(key) == value for key, value in wanted.items()))

    def save(self, path: Path) -> None:
        """Write the record as JSON, atomically."""
        files.write_json(path, self.plain())

    @classmethod
    def load(cls, path: Path) -> StudyRecord:
        """Read a record.

        Raises:
            FileError: it is missing, truncated or something else.
        """
        content = files.read_json(path)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))[:200]
            raise FileError(f"{path} is no record of a study ({where}: {first['msg']}); run the study again.") from None


def departures(config: StudyConfig, paper: StudyConfig) -> dict[str, tuple[Any, Any]]:
    """Options in which a config differs from the paper's: dotted name -> (here, there), None where one has none.

    Args:
        config: the options here.
        paper: those of the study's paper scale; where they depart from the paper (``departs``), its own count.
    """
    here, there = dict(_flat(config.plain())), dict(_flat({**paper.plain(), **paper.departs}))
    names = [*here, *(name for name in there if name not in here)]
    return {name: (here.get(name), there.get(name)) for name in names if here.get(name) != there.get(name)}


def _flat(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
