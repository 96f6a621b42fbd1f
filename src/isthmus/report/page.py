"""The page: one HTML file about audited models, self-contained, in light and dark and for paper."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from isthmus.core import files
from isthmus.core.display import Block, Finding, Section
from isthmus.core.errors import FileError
from isthmus.core.format import count, listed
from isthmus.core.types import CheckResult, Status
from isthmus.report import blocks, comparison, curves, legend, scorecard, summary, tables, verdicts
from isthmus.report import sections as drawn
from isthmus.report.blocks import ComparisonView, GridView, Merged, View, prose
from isthmus.report.citation import citations
from isthmus.report.loading import AuditedModel, load_all
from isthmus.report.palette import Looks
from isthmus.report.provenance import provenances
from isthmus.report.scorecard import in_order
from isthmus.report.sections import generic
from isthmus.report.tables import Column


@dataclass(frozen=True)
class Chapter:
    """One section of the page.

    Attributes:
        short: the title in the contents.
        shown: findings that are neither a pass nor a measurement; ``folded``: the others.
        open: blocks that are shown; ``blocks``: those behind ``summary``.
    """

    anchor: str
    title: str
    short: str
    shown: list[Merged]
    folded: list[Merged]
    open: list[View]
    blocks: list[View]
    columns: list[Column]

    @property
    def wide(self) -> bool:
        """Whether it needs the page's whole width."""
        return any(isinstance(one, GridView | ComparisonView) or _is_large(one) for one in self.open)

    @property
    def summary(self) -> str:
        """What is folded: "All findings, two figures and one table"."""
        figures = sum(one.kind in ("figure", "gallery") for one in self.blocks)
        kinds = [(figures, "figure"), (sum(one.kind == "table" for one in self.blocks), "table")]
        parts = [count(number, kind) for number, kind in kinds if number]
        text = listed(["findings"] * bool(self.folded) + parts)
        return text[:1].upper() + text[1:]


_FILES = ("style.css", "script.js")
_DIAGNOSIS = scorecard.anchor("diagnosis")


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
    with _explained("diagnosis", (model.name for model in models)):
        banner = verdicts.verdicts(models)
    template = _environment().get_template("page.html.j2")
    html = template.render(
        title=summary.title(models),
        lead=summary.lead(models),
        cautions=summary.cautions(models),
        verdicts=banner,
        compared=comparison.sentence(models) if banner else "",
        citations=citations(models) if banner else [],
        names=[model.name for model in models],
        questions=[q for q in scorecard.questions(shown, models) if not (banner and q.anchor == _DIAGNOSIS)],
        in_columns=len(models) <= scorecard.COLUMNS,
        chapters=chapters,
        comparison=[chapter for chapter in chapters if chapter.columns],
        footnote=tables.footnote([column for chapter in chapters for column in chapter.columns]),
        training=_body("training", curves.figures(models), looks),
        provenances=provenances(models),
        folders=[shlex.quote(model.folder) for model in models if model.folder],
        swatch=lambda label: legend.swatch(looks.of(name), kind="points") if (name := looks.owner(label)) else "",
        member=looks.member,
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
    style, script = (PackageLoader("isthmus.report").get_source(environment, file)[0] for file in _FILES)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # ours, and <style> and <script> take no escapes
    environment.globals |= {"style": Markup(style), "script": Markup(script), "script_hash": f"sha256-{digest}"}
    environment.filters["prose"] = prose
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
    anchor = scorecard.anchor(check)
    outcomes = scorecard.outcomes(check, models)
    found = [("", one.name, Finding(one.status or Status.SKIPPED, one.reason)) for one in outcomes]
    shown, folded = blocks.divided(blocks.merged(found))
    if check == "diagnosis":  # the verdicts are at the top of the page
        shown, folded = [], [*shown, *folded]
    with _explained(check, (model.name for model in models)):
        views = [blocks.view(block, looks, f"{anchor}-{i}") for i, block in enumerate(section.blocks)]
    first, rest = _opened(views)
    short = "Diagnosis" if check == "diagnosis" else section.title
    return Chapter(anchor, section.title, short, shown, folded, first, blocks.arranged(rest), columns)


def _opened(views: Sequence[View]) -> tuple[list[View], list[View]]:
    """The blocks of a section that are shown, and those that are folded.

    Grids and comparisons are shown, and the first figure unless there is a grid; else the first block.
    """
    chosen: list[View] = [view for view in views if isinstance(view, GridView | ComparisonView)]
    if not any(isinstance(view, GridView) for view in chosen):
        chosen += [view for view in views if view.kind == "figure"][:1]
    chosen = chosen or list(views[:1])
    return [view for view in views if view in chosen], [view for view in views if view not in chosen]


def _is_large(view: View) -> bool:
    return view.kind == "table" or getattr(view, "layout", "whole") in ("half", "multiples")


def _body(anchor: str, shown: Sequence[Block], looks: Looks) -> list[View]:
    return blocks.arranged([blocks.view(block, looks, f"{anchor}-{i}") for i, block in enumerate(shown)])
