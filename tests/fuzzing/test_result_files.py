"""Run folders, results and records that are damaged or forged: read, compared on a page, and shown by the command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.audits.stored import stored
from isthmus.core import results
from isthmus.report import loading
from isthmus.studies import page as study_page
from isthmus.studies.study import StudyRecord
from isthmus.training.run import Run
from tests.fuzzing.hostile import Draw, damaged, pickles, sealed, spoiled
from tests.fuzzing.trials import cases, command, judge, place

JSON = ["run.json", "audit/audit.json", "audit/accuracy.json", "audit/calibration.json", "audit/information.json"]
ARRAYS = ["audit/accuracy.npz", "audit/calibration.npz", "audit/information.npz"]
RECORD = Path(__file__).parents[2] / "results/rate-distortion/figure-7/small.json"
TEXTS = [
    "[" * 100_000,
    '{"a":' * 100_000,
    '{"sha256": ' + "[" * 5000 + "]" * 5000 + "}",
    "1" * 5000,
    '{"n": 1e99999}',
    '{"n": NaN, "m": -Infinity}',
    '"\\ud800"',
    "null",
    "[]",
    "\ufeff{}",
    '{"a": 1, "a": 2}',
]


@pytest.fixture(scope="session")
def light(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run without what only training and attacks read."""
    folder = tmp_path_factory.mktemp("light") / "run"
    return Path(shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoint*", "begun*", "page.html")))


@st.composite
def json_files(draw: Draw, sound: bytes, marker: Path) -> bytes:
    """A JSON file that was damaged; or that somebody wrote with care, so that its checksum is right."""
    kind = draw(st.sampled_from(["forged", "forged", "forged", "bytes", "text", "pickle"]))
    if kind == "text":
        return draw(st.sampled_from(TEXTS)).encode("utf-8", "surrogatepass")
    if kind == "pickle":
        return draw(st.sampled_from(pickles(marker)))
    return draw(spoiled(sound)) if kind == "bytes" else sealed(draw(damaged(json.loads(sound))))


def _array(draw: Draw) -> np.ndarray:
    kind = draw(st.sampled_from(["?", "i1", "u8", "f2", "f8", "c16", "U3", "S3", "M8[s]", "V5"]))
    shape = draw(st.sampled_from([(), (0,), (1,), (10,), (20,), (10, 10), (0, 3), (2, 3, 4)]))
    return np.zeros(shape, dtype=kind)


@st.composite
def array_files(draw: Draw, sound: bytes, marker: Path) -> bytes:
    """An ``.npz`` that was damaged, holds other arrays, or objects that run code where they are unpickled."""
    kind = draw(st.sampled_from(["bytes", "bytes", "arrays", "pickle"]))
    if kind == "bytes":
        return draw(spoiled(sound))
    if kind == "pickle":
        return draw(st.sampled_from(pickles(marker)))
    with np.load(BytesIO(sound)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    names = [*arrays, "../../escaped", "/escaped", "file", "allow_pickle", "a\0b"]
    arrays |= {name: _array(draw) for name in draw(st.lists(st.sampled_from(names), max_size=3))}
    buffer = BytesIO()
    np.savez(buffer, **{name: array for name, array in arrays.items() if name not in ("file", "allow_pickle")})
    return buffer.getvalue()


def _misplaced(path: Path, how: str) -> None:
    """Something in a file's place that is no file, or none of this user's."""
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "link loop":
        path.symlink_to(path.name)
    elif how == "dangling link":
        path.symlink_to("nowhere")
    elif how == "link to its folder":
        path.symlink_to(".")
    elif how == "empty":
        path.write_bytes(b"")


READERS: dict[str, Callable[[Path], Any]] = {
    "page": lambda run: loading.load_all([run]),
    "audit": lambda run: stored(run / "audit", results.load_record(run / "audit"), {"accuracy", "information"}),
    "metrics": lambda run: Run(run).metrics(),
    "recipe": lambda run: Run(run).recipe,
    "model": lambda run: Run(run).load(),
}
"""All that reads a run folder, but the page itself."""


@given(data=st.data(), name=st.sampled_from(JSON))
@cases(20, 300)
def test_damaged_json_is_read_or_refused(light: Path, data: st.DataObject, name: str) -> None:
    with place() as here:
        run = Path(shutil.copytree(light, here.folder / "run"))
        (run / name).write_bytes(data.draw(json_files((light / name).read_bytes(), here.marker)))
        for reader in READERS.values():
            judge("result file (JSON)", here, lambda reader=reader: reader(run))


@given(data=st.data(), name=st.sampled_from(ARRAYS))
@cases(16, 150)
def test_damaged_arrays_are_read_or_refused(light: Path, data: st.DataObject, name: str) -> None:
    with place() as here:
        run = Path(shutil.copytree(light, here.folder / "run"))
        (run / name).write_bytes(data.draw(array_files((light / name).read_bytes(), here.marker)))
        judge("result file (arrays)", here, lambda: READERS["page"](run))
        assert not list(here.folder.parent.rglob("*escaped*")), "a member left its archive"


@given(data=st.data())
@cases(10, 80)
def test_damaged_metrics_are_read_or_refused(light: Path, data: st.DataObject) -> None:
    sound = (light / "metrics.jsonl").read_bytes()
    lines = sound.decode().splitlines()
    with place() as here:
        run = Path(shutil.copytree(light, here.folder / "run"))
        if data.draw(st.booleans()):
            at = data.draw(st.integers(0, len(lines) - 1))
            lines[at] = (
                data.draw(st.sampled_from(TEXTS))
                if data.draw(st.booleans())
                else sealed(data.draw(damaged(json.loads(lines[at])))).decode()
            )
            sound = "\n".join(lines).encode("utf-8", "surrogatepass")
        else:
            sound = data.draw(spoiled(sound))
        (run / "metrics.jsonl").write_bytes(sound)
        for reader in ("page", "metrics"):
            judge("metrics", here, lambda reader=reader: READERS[reader](run))


@pytest.mark.parametrize("how", ["folder", "link loop", "dangling link", "link to its folder", "empty", "none"])
@pytest.mark.parametrize("name", [*JSON[:3], ARRAYS[0], "metrics.jsonl", "weights.safetensors"])
def test_what_is_no_file_is_refused(light: Path, name: str, how: str) -> None:
    with place() as here:
        run = Path(shutil.copytree(light, here.folder / "run"))
        _misplaced(run / name, how)
        for reader in READERS.values():
            judge("result file (misplaced)", here, lambda reader=reader: reader(run))


@given(data=st.data(), name=st.sampled_from([*JSON, "metrics.jsonl"]))
@cases(2, 100)
def test_pages_are_drawn_of_damaged_runs_or_refused(light: Path, data: st.DataObject, name: str) -> None:
    with place() as here:
        run = Path(shutil.copytree(light, here.folder / "run"))
        sound = (light / name).read_bytes()
        if name.endswith("l"):
            first, *others = sound.decode().splitlines()
            content = "\n".join([sealed(data.draw(damaged(json.loads(first)))).decode(), *others]).encode()
        else:
            content = sealed(data.draw(damaged(json.loads(sound))))
        (run / name).write_bytes(content)
        judge("page of a damaged run", here, lambda: command("report", "run", "--out", "page.html"))


@given(data=st.data())
@cases(3, 60)
def test_records_of_studies_are_drawn_or_refused(data: st.DataObject) -> None:
    with place() as here:
        path = here.write("record.json", data.draw(json_files(RECORD.read_bytes(), here.marker)))
        judge("study record", here, lambda: StudyRecord.load(path))
        judge("study record", here, lambda: study_page.write(path, here.folder / "page.html"))
