"""What a terminal shows of audits: a short block at the end, and on request the whole comparison."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from isthmus.core.errors import printable
from isthmus.core.format import (
    STATUSES,
    count,
    in_words,
    interval_of,
    listed,
    percent_of,
    size,
    threat_title,
)
from isthmus.core.types import Metric, Status
from isthmus.report import comparison as compared
from isthmus.report import page, scorecard, tables
from isthmus.report.headlines import CERTIFIED, CORRECTED, ROBUST, diagnosed, headlines, verdict_metric
from isthmus.report.loading import AuditedModel

_LONGEST = 1000
"""Most characters of a reason in the whole comparison; the page has all of it."""

_BLOCK = 24
"""Most lines of the block; with the page's path it fits a terminal of 25 lines."""

_WARNINGS = 4
"""Most warnings in the block."""

_LINES = 3
"""Most lines of a sentence in the block, in a terminal of 80 columns."""

_WITH_INTERVAL = (CERTIFIED, CORRECTED, ROBUST)
"""Headlines that the block shows with their interval."""

_VERDICTS = {"broken": "is broken", "overstated": "is overstated", "undecided": "is undecided"}

_STYLES = {
    Status.MEASURED: "dim",
    Status.WARN: "yellow",
    Status.FAIL: "red",
    Status.SKIPPED: "dim",
    Status.ERROR: "bold red",
}

_LEVELS = {"error": Status.ERROR, "warning": Status.WARN, "note": Status.MEASURED}
"""The status of a remark that is a caution of this level."""


class Remark(NamedTuple):
    """A classifier that collapsed, whose audit is unfinished or that needs caution; or a check that did not pass.

    ``check`` is empty but for the last.
    """

    word: str
    check: str
    model: str
    reason: str
    status: Status


def remarks_of(models: Sequence[AuditedModel]) -> list[Remark]:
    """All remarks: collapsed classifiers first, then unfinished audits, cautions, and checks in the page's order."""
    found = [Remark("collapsed", "", model.name, model.collapse, Status.ERROR) for model in models if model.collapsed]
    found += [
        Remark("unfinished", "", model.name, model.unfinished, Status.ERROR) for model in models if model.unfinished
    ]
    found += [
        Remark(caution.level, "", model.name, caution.text, _LEVELS[caution.level])
        for model in models
        for caution in model.record.cautions
    ]
    for check in scorecard.in_order({check for model in models for check in model.results}):
        for model in models:
            result = model.results.get(check)
            if result is not None and result.status not in (Status.PASS, Status.MEASURED):
                found.append(Remark(STATUSES[result.status], check, model.name, result.reason, result.status))
    return found


# --- the block at the end ---


def block(models: Sequence[AuditedModel], width: int = 80) -> RenderableType:
    """Verdict, a line for each classifier, what is shown to differ, and warnings: at most 24 lines.

    Args:
        width: of the terminal; a long sentence is replaced by a shorter one.
    """
    sentences = [
        _short(compared.sentence(models), compared.short_sentence(models), width),
        _short(compared.reported_sentence(models), "Reported and corrected robust accuracy differ: see --all.", width),
    ]
    rows = _rows(models)
    parts: list[RenderableType] = [_wrapped(_verdict(models), width), Text()]
    parts += [rows, *_legend(models)] if rows.columns else []
    parts += _also_measured(models, width)
    if any(sentences):
        parts += [Text(), *(_wrapped(each, width) for each in sentences if each)]
    room = _BLOCK - len(Console(width=width, file=io.StringIO()).render_lines(Group(*parts)))
    return Group(*parts, *_warnings(models, width, room))


def _wrapped(sentence: str, width: int) -> Text:
    return Text("\n".join(textwrap.wrap(printable(sentence), width, break_on_hyphens=False)))


def _short(sentence: str, shorter: str, width: int) -> str:
    return sentence if len(textwrap.wrap(sentence, width)) <= _LINES else shorter


def _legend(models: Sequence[AuditedModel]) -> Iterator[Text]:
    """What is reported and what is corrected."""
    reported = [metric for model in models if (metric := verdict_metric(model, "reported"))]
    if reported:
        whose = "as claimed" if all(not metric.n for metric in reported) else "against one run of PGD"
        yield Text(f"robust accuracy: reported {whose}, corrected after all attacks", "dim")


def _verdict(models: Sequence[AuditedModel]) -> str:
    """The verdict line: "verdict: robust accuracy at ℓ∞ 0.1 holds for a and is overstated for b"."""
    names: dict[str, list[str]] = {}
    for model in models:
        if (result := diagnosed(model)) is not None:
            names.setdefault(str(result.details["verdict"]["status"]), []).append(model.name)
    data = listed(list(dict.fromkeys(model.record.data.partition(";")[0] for model in models)))
    threats = dict.fromkeys(str(model.record.settings.get("threat", "")) for model in models)
    at = f" at {listed([threat_title(threat) for threat in threats])}" if all(threats) else ""
    if not names:
        skipped = any("diagnosis" in model.results for model in models)
        why = "the check diagnosis did not run to its end" if skipped else "the check diagnosis gives one"
        return f"verdict: none{at} on {data}; {why}"
    if len(models) > 2 and [len(models)] == [len(of) for of in names.values()]:
        names = {word: ["all " + count(len(models), "model").removesuffix(" models")] for word in names}
    parts = [f"{_VERDICTS.get(word, word)} for {listed(of)}" for word, of in names.items()]
    return f"verdict: robust accuracy{at} {listed(parts)} on {data}"


def _also_measured(models: Sequence[AuditedModel], width: int) -> list[Text]:
    """The checks whose numbers are not in the block."""
    shown = {"accuracy", "calibration", "certificate", "diagnosis" if any(map(diagnosed, models)) else "robustness"}
    measured = {check for model in models for check, result in model.results.items() if len(result.metrics)}
    others = scorecard.in_order(measured - shown)
    return [_wrapped(f"also measured (--all): {', '.join(others)}", width)] if others else []


def _rows(models: Sequence[AuditedModel]) -> Table:
    """A line for each classifier: reported, corrected, clean accuracy and ECE, each column with its n."""
    found = headlines(models)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
    if not found:
        return table
    table.add_column("", overflow="fold")
    sizes = [{metric.n for metric in metrics if metric is not None and metric.n} for metrics in found.values()]
    for (title, metrics), own in zip(found.items(), sizes, strict=True):
        level = (
            " (95% interval)" if title in _WITH_INTERVAL and any(m is not None and m.interval for m in metrics) else ""
        )
        n = f"\n{size(next(iter(own)))}" if len(own) == 1 else "\n"
        header = Text.assemble(f"{title}{level}", (n, "dim"))
        table.add_column(header, justify="left" if title in _WITH_INTERVAL else "right", no_wrap=True)
    for index, model in enumerate(models):
        mode = compared.mode_words(model)
        cells = [
            _number(metrics[index], title in _WITH_INTERVAL, len(own) > 1)
            for (title, metrics), own in zip(found.items(), sizes, strict=True)
        ]
        table.add_row(_text(f"{model.name} ({mode})" if mode else model.name), *cells)
    return table


def _number(metric: Metric | None, interval: bool, n: bool) -> Text:
    """A fraction, with its interval and n if the column shows them."""
    if metric is None or metric.value is None:
        return Text("–", "dim")
    if not metric.n:  # a claimed number
        return Text.assemble(percent_of(metric.value, 1000), (f" {metric.note}", "dim"))
    parts = [f" ({interval_of(metric.interval, metric.n)})"] if interval and metric.interval else []
    parts += [f" {size(metric.n)}"] if n else []
    return Text.assemble(percent_of(metric.value, metric.n), ("".join(parts), "dim"))


def _warnings(models: Sequence[AuditedModel], width: int, room: int) -> list[RenderableType]:
    """Each kind of warning with the classifiers that have it, at most ``room`` lines; neither notes nor skipped checks.

    If the warnings in full have more lines, the longest are shortened.
    """
    groups: dict[tuple[str, str, str], list[Remark]] = {}
    for remark in remarks_of(models):
        if remark.status not in (Status.SKIPPED, Status.MEASURED):
            about = remark.check or remark.reason
            groups.setdefault((remark.word, about, _STYLES[remark.status]), []).append(remark)
    if not groups:
        return []
    shown, more = list(groups.items())[:_WARNINGS], len(groups) > _WARNINGS
    sentences = [_warning(remarks, len(models) > 1) for _, remarks in shown]
    whole = [len(_hanging(sentence, width)) for sentence in sentences]
    lines: list[RenderableType] = [Text()]
    for ((word, *_, style), _), sentence, most in zip(shown, sentences, _shares(whole, room - 1 - more), strict=True):
        text = Text("\n".join(_hanging(sentence, width, max_lines=most, placeholder=" … (--all)")))
        text.stylize(style, 0, len(word))
        lines.append(text)
    return [*lines, Text(f"{len(groups) - len(shown)} more warnings: see --all or the page", "dim")] if more else lines


def _warning(remarks: Sequence[Remark], named: bool) -> str:
    """A kind of warning in a sentence; ``named`` if there are several classifiers. The reason is the first one's."""
    first = remarks[0]
    about = [first.check] if first.check else []
    about += [listed([remark.model for remark in remarks])] if named else []
    example = f"; for {first.model}" if len({remark.reason for remark in remarks}) > 1 else ""
    return printable(": ".join([first.word, *([" of ".join(about) + example] if about else []), first.reason]))


def _hanging(sentence: str, width: int, **options: Any) -> list[str]:
    return textwrap.wrap(sentence, width, subsequent_indent="  ", break_on_hyphens=False, **options)


def _shares(whole: Sequence[int], room: int) -> list[int]:
    """Lines for each warning, given those of each in full: at least one, and one more in turn while there is room."""
    shares = [1] * len(whole)
    for _ in range(min(sum(whole), room) - len(whole)):
        shares[min((share, i) for i, share in enumerate(shares) if share < whole[i])[1]] += 1
    return shares


# --- the whole comparison ---


def comparison(models: Sequence[AuditedModel]) -> Table:
    """A column for each audited classifier, a row for each number that its sections compare."""
    columns = [column for section in page.sections(models).values() for column in section.columns.items()]
    sizes = {metric.n for _, metrics in columns for metric in metrics.values() if metric.value is not None}
    shared = size(sizes.pop()) if len(sizes) == 1 else ""
    below = "95% intervals below each value"
    table = Table(caption=f"{shared}; {below}" if shared else below, caption_justify="left")
    table.add_column(_text(", ".join(dict.fromkeys(model.record.data for model in models))))
    for model in models:
        table.add_column(_text(model.name), justify="right", overflow="fold")
    for title, metrics in columns:
        row = tables.column(title, [metrics.get(model.name) for model in models])
        known = (model.name in metrics for model in models)
        small = "".join(f"\n{part}" for part in row.small if part != shared)
        cells = (_cell(cell) if there else Text("–", "dim") for there, cell in zip(known, row.cells, strict=True))
        table.add_row(Text.assemble(printable(title), (small, "dim")), *cells)
    return table


def verdicts(models: Sequence[AuditedModel]) -> Iterator[str]:
    """The verdict on each classifier in a line: its status, and the robust accuracy to cite with n and interval."""
    for model in models:
        result = diagnosed(model)
        if result is None:
            continue
        verdict, modes = result.details["verdict"], result.details["modes"]
        left, reported = (compared.verdict_metric(result.details, name) for name in ("corrected", "reported"))
        mode = f", {result.details['mode']} mode" if len(modes) > 1 else ""
        line = (
            f"verdict{f' on {model.name}' if len(models) > 1 else ''}: {verdict['status']}; robust accuracy at "
            f"{result.details['threat']}{mode}: {in_words(left)}; reported: {in_words(reported)}"
        )
        yield line.replace("\u00a0", " ")


def remarks(models: Sequence[AuditedModel]) -> Table:
    """A line for every classifier that collapsed, every caution, and every check that did not pass or measure."""
    lines = Table.grid(padding=(0, 2))
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold", ratio=1)
    lines.add_column(overflow="fold", ratio=4)
    for remark in remarks_of(models):
        style = _STYLES[remark.status]
        about = f"{remark.check} of {remark.model}" if remark.check else remark.model
        short = textwrap.shorten(remark.reason, _LONGEST, placeholder=" …")
        lines.add_row(Text(remark.word, style), _text(about), _text(short))
    return lines


def _text(given: str) -> Text:
    """A name or a sentence out of a file, as plain text."""
    return Text(printable(given))


def _cell(cell: tables.Cell) -> Text:
    why = printable(cell.note) if cell.numeric and not cell.interval else ""
    return Text.assemble(cell.text, ("".join(f"\n{part}" for part in (cell.interval, cell.n, why) if part), "dim"))
