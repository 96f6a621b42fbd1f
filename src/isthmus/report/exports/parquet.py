"""Parquet files: one row for each metric, or one for each example."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.errors import ConfigError
from isthmus.core.types import COORDINATES
from isthmus.report.loading import AuditedModel
from isthmus.report.thresholds import Judged

_OTHER_IMAGES = {
    "class_prototypes": "",
    "dataset_transfer": "",
    "diagnosis": "broken",
    "memorisation": "training_",
    "ood_detection": "^(?!(stochastic_)?in_)",
    "shift": "",
}
"""Patterns of arrays whose entries are not about the audited images, though there may be as many."""


def render(models: Sequence[AuditedModel], judged: Sequence[Judged]) -> bytes:
    """Tidy rows of all metrics: model, check, name, coordinates, value, unit, n, interval and note."""
    arrow = _arrow()
    rows = [
        {"model": model.name, "check": check, **row}
        for model in models
        for check, result in model.results.items()
        for row in result.metrics.rows()
    ]
    known = {key for row in rows for key in row}
    coordinates = [key for key in COORDINATES if key in known and key not in ("model", "norm")]
    columns = ["model", "check", "name", "norm", *coordinates, "value", "unit", "n", "low", "high", "level", "method"]
    numbers = {"value", "low", "high", "level"}
    arrays = {}
    for column in [*columns, "note"]:
        values = [row.get(column) for row in rows]
        # a coordinate may be a number in one row and a word in another
        mixed = column not in numbers and len({isinstance(value, str) for value in values if value is not None}) > 1
        arrays[column] = [None if value is None else str(value) for value in values] if mixed else values
    types = {column: arrow.float64() for column in numbers} | {"n": arrow.int64()}
    return _written({name: arrow.array(values, type=types.get(name)) for name, values in arrays.items()})


def examples(models: Sequence[AuditedModel], judged: Sequence[Judged]) -> bytes:
    """One row for each audited image and model: model, row, and each check's arrays with one value for each image.

    A column is named ``<check>.<array>``. Where a model has no such array, it is null.
    """
    arrow = _arrow()
    found = [dict(_columns(model)) for model in models]
    names = list(dict.fromkeys(name for columns in found for name in columns))
    sizes = [model.record.n for model in models]
    table = {
        "model": arrow.array([model.name for model, n in zip(models, sizes, strict=True) for _ in range(n)]),
        "row": arrow.array([row for n in sizes for row in range(n)]),
    }
    for name in names:
        values = [columns.get(name) for columns in found]
        parts = [[None] * n if column is None else column.tolist() for column, n in zip(values, sizes, strict=True)]
        table[name] = arrow.array([value for part in parts for value in part])
    return _written(table)


def _columns(model: AuditedModel) -> Iterator[tuple[str, NDArray[Any]]]:
    for check, result in model.results.items():
        for name, array in result.arrays.items():
            other = check in _OTHER_IMAGES and re.search(_OTHER_IMAGES[check], name)
            if array.shape == (model.record.n,) and not other:
                yield f"{check}.{name}", np.asarray(array)


def _arrow() -> Any:
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        raise ConfigError("Parquet files need pyarrow: pip install 'isthmus[parquet]'.") from None


def _written(columns: Mapping[str, Any]) -> bytes:
    buffer = BytesIO()
    importlib.import_module("pyarrow.parquet").write_table(_arrow().table(dict(columns)), buffer)
    return buffer.getvalue()
