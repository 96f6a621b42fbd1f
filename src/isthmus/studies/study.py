"""A study as plain data: its options, experiments, claims, tables and plots, and its record.

A paper's modules define ``STUDIES``, a tuple of :class:`Study`. Only the function that ``Study.measure`` names, and the
experiments it lists, may import torch; everything else works from a stored :class:`StudyRecord`.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BeforeValidator, Field, InstanceOf, ValidationError

from isthmus.core import files
from isthmus.core.config import Frozen, Positive, override, validate
from isthmus.core.display import Section
from isthmus.core.errors import FileError
from isthmus.core.format import listed
from isthmus.core.notebook import Summarized, dataframe
from isthmus.core.types import Coordinate, Record
from isthmus.studies.blocks import Block, Names, draw
from isthmus.studies.claims import Claim, OtherClaim, judge_all
from isthmus.studies.measured import Measured
from isthmus.studies.rows import Rows
from isthmus.studies.store import ResultStore, Stages
from isthmus.studies.verdicts import ClaimResult, Verdict

Scale = Literal["tiny", "small", "paper"]
SCALES: tuple[Scale, ...] = ("tiny", "small", "paper")
FORMAT = 2
"""Version of the format of records."""
_INCOMPLETE = (ValueError, LookupError, ZeroDivisionError)  # raised by claims and blocks if experiments are missing


def _data(given: object) -> object:
    if isinstance(given, Mapping):
        if not isinstance(given.get("name"), str):
            raise ValueError("give the name of a data set, or a mapping with its name and its options")
        own = sorted({"train_limit", "random_labels", "classes"} & set(given))
        if own:
            raise ValueError(f"the study sets {', '.join(own)} of the data with its own options")
    return given


Data = Annotated[str | dict[str, Any], BeforeValidator(_data)]
"""A data set: its name, or a mapping with the name and options, such as ``{"name": "svhn", "extra": true}``."""


def data_options(data: str | Mapping[str, Any], **own: Any) -> dict[str, Any]:
    """A data set as part of a recipe, with options that the study sets."""
    return {**(dict(data) if isinstance(data, Mapping) else {"name": data}), **own}


def data_name(data: str | Mapping[str, Any]) -> str:
    """The name of a data set, without its options."""
    return data if isinstance(data, str) else str(data["name"])


T = TypeVar("T")
Several = Annotated[tuple[T, ...], Field(min_length=1)]
"""One or more values."""


class StudyConfig(Frozen):
    """Base of every study's options; the defaults are the paper's, or our reading if it does not state them.

    Attributes:
        departs: options whose default departs from the paper, with the paper's value. Pages list them as departures.
    """

    departs: ClassVar[Mapping[str, Any]] = {}


class TrainedConfig(StudyConfig):
    """Options of a study that trains models on a data set.

    Attributes:
        seeds: number of seeds, 0, 1, 2, …, that each model is trained with.
        data: a data set, by name or with its options.
        train_limit: number of training images, class-balanced; None for all.
        training: part of a recipe (:class:`isthmus.core.recipe.Recipe`), the same for all models.
    """

    seeds: Positive = 3
    data: Data = "mnist"
    train_limit: Positive | None = None
    training: dict[str, Any]


class StudyRecord(Summarized, Record):
    """The measurements of a study so far, from which its page and its verdicts are made.

    Attributes:
        format: version of this format.
        study: its name, such as "closer-look/figure-1".
        scale: the preset from which the config started.
        overrides: settings on top of the preset, as dotted keys.
        options: further options of the command that makes this record, such as ``--out``; no number depends on them.
        config: all options, resolved.
        departures: options in which this differs from the paper: name -> [here, there].
        experiments: name -> measurements.
        total: number of experiments of the study, of which fewer are measured while it runs.
        data: ``name``, ``fingerprint`` and ``note`` of each data set that the experiments used.
        failures: experiments that could not be measured, and why; ``total`` includes them.
        seconds: time spent on the experiments, training included.
        claims: the paper's claims with their verdicts; empty until everything is measured.
        provenance: versions, commit, machine and date.
    """

    format: int = FORMAT
    study: str
    scale: Scale
    overrides: dict[str, Any] = Field(default_factory=dict)
    options: tuple[str, ...] = ()
    config: dict[str, Any]
    departures: dict[str, tuple[Any, Any]] = Field(default_factory=dict)
    experiments: dict[str, InstanceOf[Measured]] = Field(default_factory=dict)
    data: tuple[dict[str, str], ...] = ()
    total: int = 0
    failures: dict[str, str] = Field(default_factory=dict)
    seconds: float = 0.0
    claims: tuple[ClaimResult, ...] = ()
    provenance: dict[str, Any] = Field(default_factory=dict)

    @property
    def measured(self) -> int:
        """Number of measured experiments."""
        return len(self.experiments)

    @property
    def complete(self) -> bool:
        """Whether every experiment was measured or failed."""
        return 0 < self.total == len(self.experiments) + len(self.failures)

    @property
    def notes(self) -> list[str]:
        """Notes on the data, a sentence for each data set that has one."""
        return list(dict.fromkeys(f"{each['name']}: {each['note']}." for each in self.data if each["note"]))

    @property
    def collapsed(self) -> list[str]:
        """Experiments on models that stayed at chance; claims, tables and plots leave them out."""
        return [name for name, found in self.experiments.items() if found.collapsed]

    def rows(self, collapsed: bool = False) -> Rows:
        """All rows.

        Args:
            collapsed: include those of models that stayed at chance.
        """
        found = [each for each in self.experiments.values() if collapsed or not each.collapsed]
        metrics = [metric for each in found for metric in each.metrics]
        return Rows(metrics, {key: value for each in found for key, value in each.outcomes_by_metric().items()})

    def to_dataframe(self) -> Any:
        """A pandas DataFrame of tidy rows, one for each measured number of each experiment.

        Its columns are ``study``, ``experiment``, ``collapsed`` (the model stayed at chance; claims leave its numbers
        out), and name, coordinates, value, unit, n, interval and note of the metric.

        Raises:
            ConfigError: pandas is not installed.
        """
        rows = [
            {"study": self.study, "experiment": name, "collapsed": found.collapsed, **metric.row()}
            for name, found in self.experiments.items()
            for metric in found.metrics
        ]
        return dataframe(rows, "the metrics of .experiments")

    def _summary(self) -> dict[str, str]:
        notes = [f"{self.measured} of {self.total} measured"]
        notes += [f"{len(self.failures)} failed"] if self.failures else []
        notes += [f"{len(self.collapsed)} collapsed"] if self.collapsed else []
        counts = Counter(claim.verdict for claim in self.claims)
        claims = listed([f"{count} {verdict}" for verdict, count in counts.items()])
        return {
            "StudyRecord": f"{self.study}, scale {self.scale}",
            "experiments": ", ".join(notes),
            "claims": claims or "not judged",
        }

    def details(self, name: str) -> list[tuple[Mapping[str, Coordinate], Any]]:
        """Coordinates and details with a name, of each experiment that has them and whose model did not collapse."""
        found = [each for each in self.experiments.values() if name in each.details and not each.collapsed]
        return [(each.metrics[0].coords, each.details[name]) for each in found]

    def filled(self, values: Mapping[str, Any], **facts: Any) -> StudyRecord:
        """This record with experiments as the store keeps them, and other facts."""
        known = self.experiments
        experiments = {name: known.get(name) or Measured.from_plain(value) for name, value in values.items()}
        return self.model_copy(update={"experiments": experiments, **facts})

    def save(self, path: Path) -> None:
        """Write the record as JSON, atomically."""
        content = self.model_copy(update={"experiments": {}}).plain()
        files.write_json(path, content | {"experiments": {k: v.plain() for k, v in self.experiments.items()}})

    @classmethod
    def load(cls, path: Path) -> StudyRecord:
        """Read a record.

        Raises:
            FileError: it is missing, truncated, of another format or something else.
        """
        content = files.read_json(path)
        try:
            found = content.get("format", 1)
            if "study" in content and found != FORMAT:
                raise FileError(
                    f"{path} has format {found} of study records, and this version reads {FORMAT}; run the study again."
                )
            experiments = {name: Measured.from_plain(value) for name, value in content.pop("experiments").items()}
            return cls.model_validate({**content, "experiments": experiments})
        except (AttributeError, LookupError, TypeError, ValidationError) as error:
            raise FileError(f"{path} is no record of a study ({error!s:.200}); run the study again.") from None


@dataclass(frozen=True, kw_only=True)
class Study:
    """One figure, table or section of a paper.

    Attributes:
        name: such as "closer-look/figure-1".
        title: of its page.
        question: one line.
        config: the class of its options.
        measure: "module:function" in the paper's folder, from the options and the store to the experiments in stages
            (:data:`isthmus.studies.store.Stages`); imported only when they are needed.
        claims: from the options to the paper's claims.
        blocks: tables and plots of its page, or a function from the options to them.
        names: what pages call the values of coordinates, in the order of display.
    """

    name: str
    title: str
    question: str
    config: type[StudyConfig]
    measure: str
    claims: Callable[[Any], Iterable[Claim | OtherClaim]]
    blocks: Sequence[Block] | Callable[[Any], Sequence[Block]]
    names: Names = field(default_factory=dict)

    @property
    def paper(self) -> str:
        """Folder of the paper's modules."""
        return self.name.partition("/")[0].replace("-", "_")

    def preset(self, scale: Scale) -> StudyConfig:
        """The options of a scale: the defaults, changed by the paper's ``presets.yaml`` (keys may be dotted)."""
        given = _presets(self.paper).get(self.name.partition("/")[2], {}).get(scale, {})
        options = override(self.config().model_dump(), given)
        return validate(self.config, options, where=f"preset {scale} of {self.name}")

    def experiments(self, config: StudyConfig, store: ResultStore) -> Stages:
        """The experiments, in stages."""
        module, _, function = self.measure.partition(":")
        found = importlib.import_module(f"isthmus.studies.{self.paper}.{module}")
        stages: Stages = getattr(found, function)(config, store)
        return stages

    def judge(self, record: StudyRecord) -> tuple[ClaimResult, ...]:
        """The verdicts; undecided if experiments that they need failed."""
        try:
            return tuple(judge_all(self.claims(self._options(record)), record.rows()))
        except _INCOMPLETE:
            if not record.failures:
                raise
            reason = f"{len(record.failures)} of {record.total} experiments could not be measured."
            return (ClaimResult(claim="What the paper claims.", verdict=Verdict.UNDECIDED, reason=reason),)

    def section(self, record: StudyRecord) -> Section:
        """The tables and plots of its page; none if experiments that they need failed."""
        config = self._options(record)
        blocks = self.blocks(config) if callable(self.blocks) else self.blocks
        try:
            return Section(self.title, self.question, tuple(draw(blocks, record, config, self.names)))
        except _INCOMPLETE:
            if not record.failures:
                raise
            return Section(self.title, self.question)

    def _options(self, record: StudyRecord) -> StudyConfig:
        return validate(self.config, record.config, where=f"the record of {record.study}")


@cache
def _presets(paper: str) -> dict[str, Any]:
    path = Path(__file__).parent / paper / "presets.yaml"
    content: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return content


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
