"""Files are written whole or not at all, and damage is one clear sentence."""

import errno
import json
import os
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.result import RobustResult
from isthmus.core import files, results
from isthmus.core.config import read_yaml
from isthmus.core.errors import FileError
from isthmus.core.types import CheckResult, Interval, Metric, Metrics, Status
from isthmus.models.external import load_weights
from isthmus.training import checkpoints


def test_json_and_arrays_round_trip(tmp_path):
    files.write_json(tmp_path / "deep" / "a.json", {"a": [1, None]})
    assert files.read_json(tmp_path / "deep" / "a.json") == {"a": [1, None]}
    arrays = {"x": np.arange(6.0).reshape(2, 3), "flags": np.array([True, False])}
    files.write_arrays(tmp_path / "a.npz", arrays)
    found = files.read_arrays(tmp_path / "a.npz")
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", float("nan"))
    assert not (tmp_path / "a.json").exists()


def test_python_objects_are_refused(tmp_path):
    with pytest.raises(ValueError, match="pickle"):
        files.write_arrays(tmp_path / "a.npz", {"x": np.array([object()])})


def test_pickled_arrays_are_not_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([object()], dtype=object))
    with pytest.raises(FileError, match="not a readable array file"):
        files.read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("function", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, function):
    path = tmp_path / "a.json"
    files.write_json(path, "old")

    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    if function == "write":
        monkeypatch.setattr(os, "fdopen", full)
    else:
        monkeypatch.setattr(os, function, full)
    with pytest.raises(FileError, match=r"Cannot write .*No space left on device\. Whatever was written before"):
        files.write_json(path, "new")
    monkeypatch.undo()
    assert files.read_json(path) == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_written_files_have_the_usual_permissions(tmp_path):
    files.write_json(tmp_path / "a.json", 1)
    (tmp_path / "b.json").write_text("1")
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "b.json").stat().st_mode


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1, 2"])
def test_broken_json_is_explained(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(FileError, match="a.json is not a readable JSON file"):
        files.read_json(tmp_path / "a.json")
    with pytest.raises(FileError, match="There is no file"):
        files.read_json(tmp_path / "b.json")


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_any_damaged_byte_of_an_array_file_is_harmless_or_explained(tmp_path_factory, position, value):
    path = tmp_path_factory.mktemp("damage") / "a.npz"
    files.write_arrays(path, {"x": np.arange(50)})
    content = bytearray(path.read_bytes())
    content[position % len(content)] = value
    path.write_bytes(content)
    try:
        files.read_arrays(path)
    except FileError as error:
        assert "a.npz" in str(error)


class TestResults:
    result = CheckResult(
        check="accuracy",
        status=Status.PASS,
        reason="because",
        metrics=Metrics(
            [
                Metric(value=0.5, unit="fraction", n=2, interval=Interval(low=0.1, high=0.9, method="Wilson")),
                Metric(name="nll", value=float("inf"), unit="nats", n=2, coords={"mode": "mean", "eps": 0.1}),
                Metric(name="missing", value=None, unit="nats", n=0, note="not measured"),
            ]
        ),
        details={"bins": [1, 2]},
        arrays={"correct": np.array([True, False])},
    )

    def test_round_trip(self, tmp_path):
        results.save_result(tmp_path, self.result)
        found = results.load_result(tmp_path, "accuracy")
        assert found.plain() == self.result.plain()
        assert found.metrics.one("nll", mode="mean", eps=0.1).value == float("inf")
        assert np.array_equal(found.arrays["correct"], self.result.arrays["correct"])
        assert results.saved_checks(tmp_path) == ["accuracy"]

    def test_missing_and_foreign_arrays_are_explained(self, tmp_path):
        results.save_result(tmp_path, self.result)
        files.write_arrays(tmp_path / "accuracy.npz", {"other": np.zeros(1)})
        with pytest.raises(FileError, match="run the check again"):
            results.load_result(tmp_path, "accuracy")
        (tmp_path / "accuracy.npz").unlink()
        with pytest.raises(FileError, match="There is no file"):
            results.load_result(tmp_path, "accuracy")

    @pytest.mark.parametrize("content", [[], {}, {"check": "accuracy", "status": "fine", "reason": ""}])
    def test_foreign_json_is_explained(self, tmp_path, content):
        files.write_json(tmp_path / "accuracy.json", content)
        with pytest.raises(FileError, match=r"accuracy.json .* run the audit again"):
            results.load_result(tmp_path, "accuracy")


@example({"": 100}, Random(139))  # becomes 000, which is not JSON
@given(
    st.dictionaries(
        st.text(max_size=8).filter(lambda key: key != files.SEAL),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=4,
    ),
    st.randoms(use_true_random=False),
)
def test_a_changed_digit_of_json_is_noticed(tmp_path_factory, content, random):
    path = tmp_path_factory.mktemp("sealed") / "content.json"
    files.write_json(path, content)
    assert files.read_json(path) == json.loads(json.dumps(content))
    text = path.read_text("utf-8")
    name = text.rindex(f'"{files.SEAL}"')  # without it nothing is claimed
    digits = [at for at, letter in enumerate(text) if letter.isdigit() and not name <= at < name + len(files.SEAL) + 2]
    at = random.choice(digits)
    changed = text[:at] + str((int(text[at]) + random.randint(1, 9)) % 10) + text[at + 1 :]
    path.write_text(changed, "utf-8")
    try:
        same = json.loads(changed) == json.loads(text)  # as 1e05 and 1e5 are
    except ValueError:
        with pytest.raises(FileError, match="not a readable JSON file"):
            files.read_json(path)
        return
    if not same:
        with pytest.raises(FileError, match="checksum"):
            files.read_json(path)


def test_json_without_a_checksum_is_read_as_it_is(tmp_path):
    (tmp_path / "older.json").write_text('{"a": 1}', "utf-8")
    assert files.read_json(tmp_path / "older.json") == {"a": 1}
    files.write_json(tmp_path / "plain.json", {"a": 1}, sealed=False)
    assert json.loads((tmp_path / "plain.json").read_text("utf-8")) == {"a": 1}
    files.write_json(tmp_path / "list.json", [1, 2])
    assert files.read_json(tmp_path / "list.json") == [1, 2]


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_refused_by_whatever_reads_or_writes(tmp_path, kind):
    path = Path("/dev/zero")
    if kind == "pipe":
        path = tmp_path / "pipe"
        os.mkfifo(path)
    module = torch.nn.Linear(2, 2)
    for use in (
        files.read_json,
        files.read_arrays,
        read_yaml,
        RobustResult.load,
        EvaluationState.load,
        checkpoints.read,
        lambda path: load_weights(module, path),
        lambda path: files.write_bytes(path, b"nothing"),
    ):
        with pytest.raises(FileError, match="is a pipe or a device; give a regular file"):
            use(path)
    assert not path.is_file()
