"""The page of a study, drawn from its stored record alone, without torch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from isthmus.core import files
from isthmus.core.errors import FileError, brief
from isthmus.report import blocks, legend
from isthmus.report.palette import Looks
from isthmus.studies import catalogue
from isthmus.studies.verdicts import Verdict

if TYPE_CHECKING:
    from isthmus.studies.study import StudyRecord

MARKS = {Verdict.SUPPORTED: "pass", Verdict.CONTRADICTED: "fail", Verdict.UNDECIDED: "skipped"}


def write(record: str | Path, out: str | Path) -> Path:
    """Draw the page of a stored record; returns its path.

    Raises:
        FileError: the record cannot be read, or the page cannot be written.
        ConfigError: the record is of a study that does not exist.
    """
    out = Path(out)
    _, loaded = catalogue.load(Path(record))
    try:
        html = render(loaded)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise FileError(
            f"The record {record} cannot be drawn ({type(error).__name__}: {brief(error)}); another version "
            "wrote it, or it is damaged: run the study again."
        ) from error
    files.write_bytes(out, html.encode())
    return out


def render(record: StudyRecord) -> str:
    """The page as HTML; the same record gives the same text."""
    section = catalogue.find(record.study).section(record)
    looks = Looks()
    views = blocks.arranged([blocks.view(block, looks, f"block-{i}") for i, block in enumerate(section.blocks)])
    html = (
        _environment()
        .get_template("study.html.j2")
        .render(
            record=record,
            section=section,
            blocks=views,
            marks=MARKS,
            departures=[(name, *map(_text, pair)) for name, pair in record.departures.items()],
            facts=_facts(record),
            config=json.dumps(record.config, indent=1, ensure_ascii=False),
            command=command(record),
            swatch=lambda label: legend.swatch(looks.of(name), kind="points") if (name := looks.owner(label)) else "",
            member=lambda label: "",
        )
    )
    return html.encode("utf-8", "replace").decode()


def command(record: StudyRecord) -> str:
    """The command that makes or resumes this record."""
    settings = [f"{key}={json.dumps(value)}" for key, value in record.overrides.items()]
    return shlex.join(["isthmus", "study", record.study, "--scale", record.scale, *settings, *record.options])


def _environment() -> Environment:
    report = PackageLoader("isthmus.report")
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("isthmus.studies"), report]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    source, _, _ = report.get_source(environment, "style.css")
    environment.filters["prose"] = blocks.prose
    environment.globals["style"] = Markup(source)  # our own, and <style> takes no escapes
    return environment


def _facts(record: StudyRecord) -> list[tuple[str, str]]:
    made: Mapping[str, Any] = record.provenance
    packages = ", ".join(f"{name} {version}" for name, version in (made.get("packages") or {}).items() if version)
    machine = made.get("machine") or {}
    facts = {
        "date": made.get("date"),
        "measured": f"{record.measured} of {record.total} experiments",
        "time": f"{record.seconds:,.0f} s, training included",
        "machine": ", ".join(f"{value} {'CPUs' if key == 'cpus' else ''}".strip() for key, value in machine.items()),
        "Python and packages": f"{made.get('python')}; {packages}" if packages else None,
        "data": "; ".join(f"{each['name']} (fingerprint {each['fingerprint'][:16]}…)" for each in record.data),
        "commit": made.get("commit"),
    }
    return [(name, str(fact)) for name, fact in facts.items() if fact]


def _text(value: Any) -> str:
    return "not set" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
