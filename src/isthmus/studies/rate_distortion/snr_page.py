"""The page of figure 2: a panel a network, a line a layer."""

from __future__ import annotations

from statistics import fmean

from isthmus.core.types import Figure, Section, Series, Table
from isthmus.studies import catalogue
from isthmus.studies.old.drawing import Row
from isthmus.studies.old.evidence import percent
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.rate_distortion.snr_claims import NETWORKS, Network, courses, named, networks, settled_at, spread


def section(record: StudyRecord) -> Section:
    """Up to four panels and a table."""
    there = [network for network in NETWORKS if networks(record, network)]
    blocks: tuple[Figure | Table, ...] = tuple(_panel(record, network) for network in there)
    title = "Figure 2: the gradients' signal-to-noise ratio"
    return Section(title, catalogue.question(record.study), (*blocks, _table(record, there)) if there else ())


def _panel(record: StudyRecord, network: Network) -> Figure:
    cell = networks(record, network)[0]
    series = []
    for layer, course in courses(cell).items():
        epochs = cell["epochs"][-len(course) :]  # those that are not measured are the first, if any
        series.append(Series(f"layer {layer}", tuple(map(float, epochs)), tuple(course), group=f"layer {layer}"))
    ends = [course[-1] for course in courses(cell).values()]
    return Figure(
        title=named(network),
        reading=f"Seed {cell['seed']}. After {cell['epochs'][-1]:,} epochs from 10^{min(ends):.2f} to "
        f"10^{max(ends):.2f}; layers are counted from the input.",
        x_label="epoch",
        y_label="log10 of the ratio" + ("" if record.config.get("normalize_noise", True) else ", noise as printed"),
        series=tuple(series),
    )


def _table(record: StudyRecord, there: list[Network]) -> Table:
    lines: list[Row] = []
    for network in there:
        cells = networks(record, network)
        epochs = cells[0]["epochs"][-1]
        lines.append(
            (
                named(network),
                len(cells),
                percent(fmean(cell["test_accuracy"] for cell in cells)),
                f"{fmean(settled_at(cell) for cell in cells) * epochs:.0f}",
                f"{fmean(spread(cell) for cell in cells):.2f}",
            )
        )
    return Table(
        title="When ratios settle, and where",
        reading="Settled: from then on every layer stays within a quarter decade of its level in the last tenth of "
        "training. Spread: decades between the hidden layers' last levels. Means over seeds.",
        columns=("network", "seeds", "right on test images", "settled at epoch", "spread, decades"),
        rows=tuple(lines),
    )
