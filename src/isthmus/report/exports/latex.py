"""A LaTeX table of the main numbers, for the package booktabs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from isthmus.core.errors import printable
from isthmus.core.format import interval_text, level_text, threat_title, value_text
from isthmus.core.types import Metric
from isthmus.report.comparison import mode_words
from isthmus.report.headlines import headlines
from isthmus.report.loading import AuditedModel
from isthmus.report.thresholds import Judged

_ASCII = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}
_SYMBOLS = {
    "−": "$-$",
    "–": "--",
    "∞": r"$\infty$",
    "ℓ": r"$\ell$",
    "ε": r"$\varepsilon$",
    "ρ": r"$\rho$",
    "±": r"$\pm$",
}
_SYMBOLS |= {
    "ℓ∞": r"$\ell_\infty$",
    "ℓ1": r"$\ell_1$",
    "ℓ2": r"$\ell_2$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "β": r"$\beta$",
    "σ": r"$\sigma$",
    "…": r"\ldots{}",
    "’": "'",
}


def render(models: Sequence[AuditedModel], judged: Sequence[Judged]) -> bytes:
    """A ``table`` with a row for each model; its caption names data, threat, n and the level of the intervals."""
    found = headlines(models)
    rows = [
        [escaped(_named(model)), *(_cell(metrics[index]) for metrics in found.values())]
        for index, model in enumerate(models)
    ]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_caption(models, list(found.values()))}}}",
        rf"  \begin{{tabular}}{{l{'l' * len(found)}}}",
        r"    \toprule",
        f"    {_row(['model', *found])}",
        r"    \midrule",
        *(f"    {_row(row)}" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return ("\n".join(lines) + "\n").encode()


def _named(model: AuditedModel) -> str:
    mode = mode_words(model)
    return f"{model.name} ({mode})" if mode else model.name


def _caption(models: Sequence[AuditedModel], columns: Sequence[Sequence[Metric | None]]) -> str:
    shown = [metric for column in columns for metric in column if metric is not None and metric.n]
    sizes = sorted({metric.n for metric in shown})
    levels = sorted({level_text(metric.interval) for metric in shown if metric.interval})
    data = list(dict.fromkeys(model.record.data.partition(";")[0] for model in models))
    threats = list(dict.fromkeys(threat_title(str(model.record.settings.get("threat", ""))) for model in models))
    n = f"$n = {sizes[0]}$" if len(sizes) == 1 else f"$n = {', '.join(map(str, sizes))}$"
    made = f"Accuracies on {escaped(', '.join(data))} at {escaped(', '.join(threats))}, {n}"
    return (
        f"{made}, with {escaped(' and '.join(levels))} intervals. Robust accuracies are upper bounds found by attacks."
    )


def _cell(metric: Metric | None) -> str:
    if metric is None or metric.value is None:
        return "--"
    interval = interval_text(metric)
    return escaped(f"{value_text(metric)} ({interval})" if interval else value_text(metric))


def _row(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def escaped(text: str) -> str:
    """Text that pdflatex sets as it is: commands escaped, symbols in mathematics, other letters as "?"."""
    line = printable(text).replace("\u00a0", " ")
    return re.sub(r"ℓ[∞12]|[^A-Za-z0-9 ]", lambda found: _character(found[0]), line)


def _character(character: str) -> str:
    known = _ASCII.get(character) or _SYMBOLS.get(character)
    return known or (character if character.isascii() or "\u00c0" <= character <= "\u017f" else "?")
