"""A summary in GitHub's Markdown, short enough for the comment of a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from isthmus.core.errors import printable
from isthmus.core.format import in_words, threat_title
from isthmus.core.types import Metric
from isthmus.report.changes import AuditComparison
from isthmus.report.comparison import mode_words
from isthmus.report.exports.outcomes import outcomes
from isthmus.report.headlines import diagnosed, headlines
from isthmus.report.loading import AuditedModel, as_mapping
from isthmus.report.thresholds import Judged

_LONGEST = 300  # characters of a reason
_SHORT = 16  # of a hash
_SHOWN = ("failed", "warning", "error")


def render(models: Sequence[AuditedModel], judged: Sequence[Judged]) -> bytes:
    """Verdict, a table of the main numbers, thresholds, what did not pass, and how to reproduce it."""
    return ("\n".join(_lines(models, judged)) + "\n").encode()


def _lines(models: Sequence[AuditedModel], judged: Sequence[Judged]) -> Iterator[str]:
    yield "### Robustness audit by isthmus"
    yield ""
    yield from table(models)
    if judged:
        yield ""
        yield from (f"- {'**missed**' if each.missed else 'reached'}: {escaped(str(each))}" for each in judged)
    remarks = [
        f"- {outcome.level}: {outcome.name} of {escaped(model.name)}: {escaped(outcome.reason, _LONGEST)}"
        for model in models
        for outcome in outcomes(model, ())
        if outcome.level in _SHOWN
    ]
    if remarks:
        yield from ("", *remarks)
    yield from ("", "<details><summary>How to reproduce</summary>", "")
    yield from (f"- {_made(model)}" for model in models)
    yield from ("", "</details>")


def table(models: Sequence[AuditedModel]) -> Iterator[str]:
    """The table of the main numbers, each with interval and n."""
    found = headlines(models)
    yield _row(["model", "data, threat", "verdict", *found])
    yield _row(["---"] * (3 + len(found)))
    for index, model in enumerate(models):
        result = diagnosed(model)
        mode = mode_words(model)
        where = f"{model.record.data.partition(';')[0]}, {threat_title(str(model.record.settings.get('threat', '')))}"
        yield _row(
            [
                escaped(f"{model.name} ({mode})" if mode else model.name),
                escaped(where),
                f"**{result.details['verdict']['status']}**" if result is not None else "none",
                *(_cell(metrics[index]) for metrics in found.values()),
            ]
        )


def comparison(found: AuditComparison) -> bytes:
    """Two audits compared: a sentence and a table of the changes."""
    lines = ["### Robustness audits compared by isthmus", "", escaped(found.sentence), ""]
    lines.append(_row(["", escaped(found.before), escaped(found.after), "difference", ""]))
    lines.append(_row(["---"] * 5))
    for *cells, outcome in found.table():
        lines.append(_row([*map(escaped, cells), f"**{outcome}**" if outcome == "worse" else outcome]))
    lines += ["", *(f"- {escaped(line)}" for line in (*found.missing, *found.notes))]
    return ("\n".join(lines).rstrip() + "\n").encode()


def _cell(metric: Metric | None) -> str:
    return "not measured" if metric is None or metric.value is None else escaped(in_words(metric))


def _made(model: AuditedModel) -> str:
    record = model.record
    made = as_mapping(record.provenance.get("packages")).get("isthmus")
    command = record.provenance.get("command")
    return (
        f"{escaped(model.name)}: {_code(str(command)) if command else 'a call of isthmus.audit'}; isthmus {made}, seed "
        f"{record.seed}, n = {record.n:,} ({escaped(str(record.settings.get('images', 'all')))}); SHA-256 of the "
        f"model {record.model_hash[:_SHORT]}…, of the data {record.data_hash[:_SHORT]}…"
    )


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str, most: int | None = None) -> str:
    """Text on one line without markup, shortened to ``most`` characters."""
    line = printable(text)
    if most is not None and len(line) > most:
        line = line[: most - 1].rstrip() + "…"
    return re.sub(r"([\\`*_{}\[\]<>#|~@])", r"\\\1", line)


def _code(text: str) -> str:
    """Text as code; its own backticks are replaced, since a fence of variable length would not fit in a table."""
    return f"`{printable(text).replace('`', chr(39))}`"
