"""The page: one HTML file about audited models, self-contained, in light and dark and for paper."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from isthmus.core import files
from isthmus.core.display import Block, Section
from isthmus.core.errors import FileError
from isthmus.core.types import CheckResult, Status
from isthmus.report import blocks, curves, legend, scorecard, summary, tables
from isthmus.report import sections as drawn
from isthmus.report.loading import AuditedModel, load_all
from isthmus.report.palette import Looks
from isthmus.report.provenance import provenance
from isthmus.report.scorecard import Outcome, in_order
from isthmus.report.sections import generic
from isthmus.report.tables import Column


@dataclass(frozen=True)
class Chapter:
    """One section of the page."""

    anchor: str
    title: str
    question: str
    outcomes: list[Outcome]
    blocks: list[blocks.View]
    columns: list[Column]


def write(run_folders: Sequence[str | Path], out: str | Path) -> Path:
    """Read run folders and write the page that compares them; returns the page's path.

    ``out`` itself may be among the folders (``isthmus report runs/* --out runs/index.html``, called twice).

    Raises:
        FileError: a folder or file cannot be used, or the page cannot be written.
    """
    out = Path(out)
    models = load_all([folder for folder in run_folders if files.real(folder) != files.real(out)])
    files.write_bytes(out, render(models).encode())
    return out


def render(models: Sequence[AuditedModel]) -> str:
    """The page as HTML; the same models give the same text.

    Raises:
        FileError: a stored result cannot be shown by this version's check.
    """
    shown = sections(models)
    looks = Looks(model.name for model in models)
    chapters = [_chapter(check, section, models, looks) for check, section in shown.items()]
    template = _environment().get_template("page.html.j2")
    html = template.render(
        title=summary.title(models),
        lead=summary.lead(models),
        cautions=summary.cautions(models),
        ranges=summary.ranges(list(shown.values()), len(models)),
        names=[model.name for model in models],
        questions=scorecard.questions(shown, models),
        in_columns=len(models) <= scorecard.COLUMNS,
        chapters=chapters,
        comparison=[chapter for chapter in chapters if chapter.columns],
        footnote=tables.footnote([column for chapter in chapters for column in chapter.columns]),
        training=_body("training", curves.figures(models), looks),
        provenances=[provenance(model) for model in models],
        folders=[shlex.quote(model.folder) for model in models if model.folder],
        swatch=lambda label: legend.swatch(looks.of(name), kind="points") if (name := looks.owner(label)) else "",
    )
    return html.encode("utf-8", "replace").decode()  # JSON can hold half a surrogate pair, a file cannot


def sections(models: Sequence[AuditedModel]) -> dict[str, Section]:
    """The section of every check about these classifiers, by the check's name, in the page's order.

    Raises:
        FileError: see :func:`render`.
    """
    checks = in_order({check for model in models for check in model.results})
    return {check: _section(check, models) for check in checks}


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


def _section(check: str, models: Sequence[AuditedModel]) -> Section:
    """The section of a check, from the results that hold something."""
    shown = {model.name: model.results[check] for model in models if _has_content(model.results.get(check))}
    if not shown:
        return Section(generic.title(check), "")
    with _explained(check, shown):
        return drawn.find(check)(shown)


@contextmanager
def _explained(check: str, names: Iterable[str]) -> Iterator[None]:
    """An error while a section is drawn is a fault of the stored file, reported in one sentence."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise FileError(
            f"The stored results of the check {check!r} for {', '.join(names)} cannot be drawn "
            f"({type(error).__name__}: {error}); another version wrote them, or they are damaged: "
            "run the audit again."
        ) from error


def _has_content(result: CheckResult | None) -> bool:
    return result is not None and (bool(len(result.metrics)) or result.status not in (Status.SKIPPED, Status.ERROR))


def _chapter(check: str, section: Section, models: Sequence[AuditedModel], looks: Looks) -> Chapter:
    columns = [
        tables.column(title, [metrics.get(model.name) for model in models])
        for title, metrics in section.columns.items()
    ]
    outcomes = scorecard.outcomes(check, models)
    anchor = scorecard.anchor(check)
    with _explained(check, (model.name for model in models)):
        body = _body(anchor, section.blocks, looks)
    return Chapter(anchor, section.title, section.question, outcomes, body, columns)


def _body(anchor: str, shown: Sequence[Block], looks: Looks) -> list[blocks.View]:
    return blocks.arranged([blocks.view(block, looks, f"{anchor}-{i}") for i, block in enumerate(shown)])
