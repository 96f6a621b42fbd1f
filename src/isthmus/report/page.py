"""The page: subjects in, one HTML file out that opens anywhere, offline, in light and dark and on paper."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from isthmus.core import files, registry
from isthmus.core.errors import ConfigError, FileError
from isthmus.core.types import CheckResult, Section, Status, Table
from isthmus.report import blocks, curves, legend, scorecard, summary, tables
from isthmus.report.palette import Looks
from isthmus.report.provenance import account
from isthmus.report.scorecard import Finding, in_order
from isthmus.report.subjects import Subject, load_all
from isthmus.report.tables import Column


@dataclass(frozen=True)
class Chapter:
    """One section of the page."""

    anchor: str
    title: str
    question: str
    findings: list[Finding]
    blocks: list[blocks.View]
    columns: list[Column]


def write(run_folders: Sequence[str | Path], out: str | Path) -> Path:
    """Read run folders and write the page that compares them; returns the page's path.

    ``out`` itself may be among the folders (``isthmus report runs/* --out runs/index.html``, called twice).

    Raises:
        FileError: a folder or file cannot be used, or the page cannot be written.
    """
    out = Path(out)
    subjects = load_all([folder for folder in run_folders if files.real(folder) != files.real(out)])
    files.write_bytes(out, render(subjects).encode())
    return out


def render(subjects: Sequence[Subject]) -> str:
    """The page as HTML; the same subjects give the same text.

    Raises:
        FileError: a stored result cannot be shown by this version's check.
    """
    shown = sections(subjects)
    looks = Looks(subject.name for subject in subjects)
    chapters = [_chapter(check, section, subjects, looks) for check, section in shown.items()]
    training = curves.section(subjects)
    template = _environment().get_template("page.html.j2")
    html = template.render(
        title=summary.title(subjects),
        lead=summary.lead(subjects),
        cautions=summary.cautions(subjects),
        ranges=summary.ranges(list(shown.values()), len(subjects)),
        names=[subject.name for subject in subjects],
        questions=scorecard.questions(shown, subjects),
        in_columns=len(subjects) <= scorecard.COLUMNS,
        chapters=chapters,
        comparison=[chapter for chapter in chapters if chapter.columns],
        footnote=tables.footnote([column for chapter in chapters for column in chapter.columns]),
        training=_body("training", training, looks) if training else None,
        accounts=[account(subject) for subject in subjects],
        folders=[shlex.quote(subject.folder) for subject in subjects if subject.folder],
        swatch=lambda label: legend.swatch(looks.of(name), kind="points") if (name := looks.owner(label)) else "",
    )
    return html.encode("utf-8", "replace").decode()  # JSON can hold half a surrogate pair, a file cannot


def sections(subjects: Sequence[Subject]) -> dict[str, Section]:
    """What every check has to show about these classifiers, by the check's name, in the page's order.

    Raises:
        FileError: see :func:`render`.
    """
    checks = in_order({check for subject in subjects for check in subject.results})
    return {check: _section(check, subjects) for check in checks}


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("isthmus.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    source, _, _ = PackageLoader("isthmus.report").get_source(environment, "style.css")
    environment.globals["style"] = Markup(source)  # ours, and a <style> takes no escapes
    return environment


def _section(check: str, subjects: Sequence[Subject]) -> Section:
    """Ask the check how to show itself. One that is not installed here still shows its numbers."""
    shown = {s.name: s.results[check] for s in subjects if check in s.results and _measured(s.results[check])}
    if not shown:
        return Section(_title(check), "")
    try:
        module = registry.find("checks", check)
    except ConfigError:
        return _plain(check, shown, "is not installed here, so its numbers are shown without its figures")
    if not hasattr(module, "section"):
        return _plain(check, shown, "has no `section` of its own, so its metrics are shown as they are")
    with _explained(check, shown):
        section = module.section(shown)
    assert isinstance(section, Section)
    return section


@contextmanager
def _explained(check: str, names: Iterable[str]) -> Iterator[None]:
    """What a check's section stumbles over is a fault of the stored file, said in one sentence."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise FileError(
            f"The stored results of the check {check!r} for {', '.join(names)} cannot be drawn "
            f"({type(error).__name__}: {error}); another version wrote them, or they are damaged: "
            "run the audit again."
        ) from error


def _measured(result: CheckResult) -> bool:
    return bool(result.metrics) or result.status not in (Status.SKIPPED, Status.ERROR)


def _plain(check: str, results: Mapping[str, CheckResult], why: str) -> Section:
    """A section of a check's metrics, for one that does not say how to show them."""
    names = list(dict.fromkeys(name for result in results.values() for name in result.metrics))
    rows = tuple((who, *(result.metrics.get(name) for name in names)) for who, result in results.items())
    reading = f"The check {check!r} {why}."
    return Section(_title(check), "", (Table("Measured numbers", reading, ("classifier", *names), rows),))


def _title(check: str) -> str:
    return check.replace("_", " ").capitalize()


def _chapter(check: str, section: Section, subjects: Sequence[Subject], looks: Looks) -> Chapter:
    columns = [
        tables.column(title, [metrics.get(subject.name) for subject in subjects])
        for title, metrics in section.columns.items()
    ]
    findings = scorecard.findings(check, subjects)
    anchor = scorecard.anchor(check)
    with _explained(check, (subject.name for subject in subjects)):
        body = _body(anchor, section, looks)
    return Chapter(anchor, section.title, section.question, findings, body, columns)


def _body(anchor: str, section: Section, looks: Looks) -> list[blocks.View]:
    return blocks.arranged([blocks.view(block, looks, f"{anchor}-{i}") for i, block in enumerate(section.blocks)])
