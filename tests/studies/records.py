"""Made-up records of studies, for tests of claims and pages."""

from isthmus.core.types import Interval, Metric
from isthmus.studies import catalogue
from isthmus.studies.measured import fraction, measured
from isthmus.studies.study import StudyRecord


def record(name, experiments, **config):
    """A record of a study with these options, from the plain data of experiments."""
    study = catalogue.find(name)
    empty = StudyRecord(study=name, scale="small", config=study.config(**config).plain())
    return empty.filled({f"{number}": each for number, each in enumerate(experiments)}, total=len(experiments))


def verdicts(made):
    """The verdicts on the claims of a record, in their order."""
    return [each.verdict for each in catalogue.find(made.study).judge(made)]


def blocks(made):
    """The tables and plots of a record's page."""
    return catalogue.find(made.study).section(made).blocks


def with_interval(name, value, low, high, unit="fraction", n=1000):
    """A row with a bootstrap interval."""
    interval = Interval(low=low, high=high, method="bootstrap over examples")
    return Metric(name=name, value=value, unit=unit, n=n, interval=interval)


def row(name, value, unit="", n=1, **coords):
    """A row without an interval."""
    return Metric(name=name, value=value, unit=unit, n=n, coords=coords)


__all__ = ["blocks", "fraction", "measured", "record", "row", "verdicts", "with_interval"]
