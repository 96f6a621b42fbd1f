"""The page of figure 5: information and accuracy over the signal-to-noise ratio, and what is kept."""

from __future__ import annotations

from statistics import fmean

from isthmus.core.types import Figure, Mark, Section, Series, Table
from isthmus.studies import catalogue
from isthmus.studies.old.drawing import Row
from isthmus.studies.old.evidence import percent
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.rate_distortion.noise_claims import NOISES, kept, kinds, there, trained

TITLES = {"information_bits": "Information about the label", "accuracy": "Accuracy"}
SPACES = {"whitened": "of whitened images", "pixels": "of pixels"}
NAMES = {"A": "A, no regulariser", "B": "B, weight decay", "B+": "B+, more images", "C": "C, batch norm besides"}


def section(record: StudyRecord) -> Section:
    """A figure a model and quantity; the table."""
    blocks: tuple[Figure | Table, ...] = ()
    if record.cells:
        blocks = (*(_panel(record, model, what) for what in TITLES for model in there(record)), _table(record))
    title = "Figure 5: fault tolerance"
    return Section(title, catalogue.question(record.study), blocks)


def _panel(record: StudyRecord, model: str, what: str) -> Figure:
    cells = trained(record, model)
    snr = tuple(cells[0]["snr"])
    series = []
    for noise in kinds(record):
        courses = [cell["noises"][noise][what][1:] for cell in cells]  # the clean image has no ratio
        means = tuple(fmean(values) for values in zip(*courses, strict=True))
        series.append(Series(NOISES[noise], snr, means, group=NOISES[noise]))
    clean = fmean(cell["noises"][kinds(record)[0]][what][0] for cell in cells)
    return Figure(
        title=f"{TITLES[what]}: {NAMES[model]}",
        reading=f"Mean over {len(cells)} seeds; noise grows to the left. Clean images: "
        f"{percent(clean) if what == 'accuracy' else f'{clean:.2f} bits'}.",
        x_label=f"signal-to-noise ratio, dB, {SPACES[record.config['space']]}",
        y_label="I(T;Y), bits" if what == "information_bits" else "fraction right",
        series=tuple(series),
        marks=(Mark("H(Y)", y=cells[0]["label_entropy_bits"]),) if what == "information_bits" else (),
    )


def _table(record: StudyRecord) -> Table:
    lines: list[Row] = []
    for model in there(record):
        cells = trained(record, model)
        shares = [kept(record, model, noise).metric for noise in kinds(record)]
        lines.append((NAMES[model], len(cells), percent(fmean(cell["test_accuracy"] for cell in cells)), *shares))
    low, high = (record.config[end] for end in ("low", "high"))
    return Table(
        title="Share of the labels' information that is kept",
        reading=f"I(T;Y) as a share of H(Y), averaged over ratios {SPACES[record.config['space']]} from {low:g} to "
        f"{high:g} dB; what counts at a ratio is the least transmitted there or at any higher one.",
        columns=("model", "seeds", "right on test images", *(NOISES[noise] for noise in kinds(record))),
        rows=tuple(lines),
    )
